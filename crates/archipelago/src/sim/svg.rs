use std::fmt::Write;

use protocol::Position;
use rustc_hash::FxHashMap;

use super::simulation::all_members;
use crate::Engine;

/// Side of the drawing, in its own units.
const SIDE: f32 = 800.0;
const MARGIN: f32 = 20.0;
/// Islands of fewer than this are drawn without an outline.
const OUTLINED: usize = 3;

/// Draws everybody as a dot, in the colour of their island, and a line around each island.
pub fn draw(engine: &Engine) -> String {
    let people = all_members(engine);
    let frame = Frame::around(people.iter().map(|&(_, position, _)| position));
    let mut islands: FxHashMap<usize, Vec<(f32, f32)>> = FxHashMap::default();
    for (_, position, island) in people {
        islands.entry(island).or_default().push(frame.to_drawing(position));
    }
    let mut islands: Vec<_> = islands.into_iter().collect();
    islands.sort_by_key(|&(island, _)| island);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIDE} {SIDE}\">\n\
         <rect width=\"{SIDE}\" height=\"{SIDE}\" fill=\"#fff\"/>\n"
    );
    for (island, places) in &islands {
        // Colours a golden angle apart: those that follow each other are told apart well.
        let hue = (*island as f32 * 137.508) % 360.0;
        let colour = colour(hue, 0.65, if island % 2 == 0 { 0.4 } else { 0.52 });
        if places.len() >= OUTLINED {
            let _ = writeln!(
                svg,
                "<polygon points=\"{}\" fill=\"{colour}\" fill-opacity=\"0.12\" stroke=\"{colour}\"/>",
                points(&hull(places))
            );
        }
        for (x, y) in places {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// A colour of so much hue, in degrees, saturation and lightness as `#rrggbb`: not every viewer knows
/// `hsl()`.
fn colour(hue: f32, saturation: f32, lightness: f32) -> String {
    let strength = saturation * lightness.min(1.0 - lightness);
    let channel = |offset: f32| {
        let turn = (offset + hue / 30.0) % 12.0;
        let share = lightness - strength * (turn - 3.0).min(9.0 - turn).clamp(-1.0, 1.0);
        (share * 255.0).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(0.0), channel(8.0), channel(4.0))
}

fn points(places: &[(f32, f32)]) -> String {
    places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

/// What part of the world the drawing shows.
struct Frame {
    low: Position,
    high_z: f32,
    scale: f32,
}

impl Frame {
    fn around(positions: impl Iterator<Item = Position>) -> Self {
        let (mut low, mut high) =
            (Position::new(f32::MAX, 0.0, f32::MAX), Position::new(f32::MIN, 0.0, f32::MIN));
        for Position { x, z, .. } in positions {
            (low.x, low.z) = (low.x.min(x), low.z.min(z));
            (high.x, high.z) = (high.x.max(x), high.z.max(z));
        }
        let side = (high.x - low.x).max(high.z - low.z).max(1.0);
        Self { low, high_z: high.z, scale: (SIDE - 2.0 * MARGIN) / side }
    }

    /// North is up.
    fn to_drawing(&self, at: Position) -> (f32, f32) {
        (MARGIN + (at.x - self.low.x) * self.scale, MARGIN + (self.high_z - at.z) * self.scale)
    }
}

/// The corners of the smallest convex outline around some places (Andrew's monotone chain).
fn hull(places: &[(f32, f32)]) -> Vec<(f32, f32)> {
    let mut sorted = places.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut lower = half_hull(sorted.iter().copied());
    let mut upper = half_hull(sorted.iter().rev().copied());
    // The ends of each are the beginning of the other.
    lower.pop();
    upper.pop();
    lower.extend(upper);
    lower
}

fn half_hull(places: impl Iterator<Item = (f32, f32)>) -> Vec<(f32, f32)> {
    let mut hull: Vec<(f32, f32)> = Vec::new();
    for place in places {
        while let [.., a, b] = hull.as_slice()
            && (b.0 - a.0) * (place.1 - a.1) <= (b.1 - a.1) * (place.0 - a.0)
        {
            hull.pop();
        }
        hull.push(place);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hsl_colour_converts_to_rgb_hex() {
        assert_eq!(colour(0.0, 1.0, 0.5), "#ff0000");
        assert_eq!(colour(120.0, 1.0, 0.25), "#008000");
        assert_eq!(colour(240.0, 0.5, 0.5), "#4040bf");
        assert_eq!(colour(77.0, 0.0, 1.0), "#ffffff");
    }

    #[test]
    fn hull_of_a_square_is_its_corners() {
        let places = [(0.0, 0.0), (1.0, 0.5), (2.0, 0.0), (2.0, 2.0), (1.0, 1.0), (0.0, 2.0)];
        assert_eq!(hull(&places), [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]);
    }
}
