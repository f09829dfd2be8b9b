//! Drawings of islands as SVG.

use std::fmt::Write;

use protocol::Position;
use rustc_hash::FxHashMap;

use super::measure::all_members;
use crate::engine::Engine;

/// Side of the drawing, in SVG user units.
const SIDE: f32 = 800.0;
const MARGIN: f32 = 20.0;
/// Islands with fewer members than this are drawn without an outline.
const OUTLINED: usize = 3;

/// Draws each peer as a dot in the colour of its island, and the convex hull of each island.
pub fn draw(engine: &Engine) -> String {
    let peers = all_members(engine);
    let frame = Frame::around(peers.iter().map(|&(_, position, _)| position));
    let mut islands: FxHashMap<usize, Vec<(f32, f32)>> = FxHashMap::default();
    for (_, position, island) in peers {
        islands.entry(island).or_default().push(frame.to_drawing(position));
    }
    let mut islands: Vec<_> = islands.into_iter().collect();
    islands.sort_by_key(|&(island, _)| island);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIDE} {SIDE}\">\n\
         <rect width=\"{SIDE}\" height=\"{SIDE}\" fill=\"#fff\"/>\n"
    );
    for (island, points) in &islands {
        // Hues a golden angle apart: those of consecutive islands are easy to distinguish.
        let hue = (*island as f32 * 137.508) % 360.0;
        let colour = colour(hue, 0.65, if island % 2 == 0 { 0.4 } else { 0.52 });
        if points.len() >= OUTLINED {
            let _ = writeln!(
                svg,
                "<polygon points=\"{}\" fill=\"{colour}\" fill-opacity=\"0.12\" stroke=\"{colour}\"/>",
                point_list(&hull(points))
            );
        }
        for (x, y) in points {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Converts HSL to `#rrggbb`, because not every viewer supports `hsl()`. Hue is in degrees, the others are
/// 0 to 1.
fn colour(hue: f32, saturation: f32, lightness: f32) -> String {
    let strength = saturation * lightness.min(1.0 - lightness);
    let channel = |offset: f32| {
        let turn = (offset + hue / 30.0) % 12.0;
        let share = lightness - strength * (turn - 3.0).min(9.0 - turn).clamp(-1.0, 1.0);
        (share * 255.0).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(0.0), channel(8.0), channel(4.0))
}

fn point_list(points: &[(f32, f32)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

/// Maps the part of the world that contains all peers to the drawing.
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

    /// World to drawing coordinates; north (positive z) is up.
    fn to_drawing(&self, at: Position) -> (f32, f32) {
        (MARGIN + (at.x - self.low.x) * self.scale, MARGIN + (self.high_z - at.z) * self.scale)
    }
}

/// The convex hull of some points (Andrew's monotone chain).
fn hull(points: &[(f32, f32)]) -> Vec<(f32, f32)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut lower = half_hull(sorted.iter().copied());
    let mut upper = half_hull(sorted.iter().rev().copied());
    // The last point of each half is the first of the other.
    lower.pop();
    upper.pop();
    lower.extend(upper);
    lower
}

fn half_hull(points: impl Iterator<Item = (f32, f32)>) -> Vec<(f32, f32)> {
    let mut hull: Vec<(f32, f32)> = Vec::new();
    for point in points {
        while let [.., a, b] = hull.as_slice()
            && (b.0 - a.0) * (point.1 - a.1) <= (b.1 - a.1) * (point.0 - a.0)
        {
            hull.pop();
        }
        hull.push(point);
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
        let points = [(0.0, 0.0), (1.0, 0.5), (2.0, 0.0), (2.0, 2.0), (1.0, 1.0), (0.0, 2.0)];
        assert_eq!(hull(&points), [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]);
    }
}
