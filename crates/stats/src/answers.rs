//! The bodies of the answers, as clients and sites of the field read them.

use std::collections::BTreeMap;

use protocol::{Address, Parcel, Position, PositionPrecision};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    Settings,
    event::Transport,
    presence::{IslandCopy, Peer},
    scenes::Scenes,
};

/// A peer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PeerAnswer {
    /// The address, in lower case.
    id: String,
    address: String,
    /// When it last said where it is, in milliseconds since the Unix epoch.
    last_ping: u64,
    parcel: [i32; 2],
    /// Metres; y is up. The centre of the parcel with y 0, where only parcels are shown.
    position: [f32; 3],
}

impl PeerAnswer {
    pub(crate) fn new(address: Address, peer: &Peer) -> Self {
        let (parcel, position) = (peer.position.parcel(), peer.position);
        Self {
            id: address.to_string(),
            address: address.to_string(),
            last_ping: peer.last_ping,
            parcel: [parcel.x, parcel.y],
            position: [position.x, position.y, position.z],
        }
    }
}

/// An island.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IslandAnswer {
    id: String,
    max_peers: u32,
    /// The mean of its members' places on the ground, in metres; where only parcels are shown, the
    /// centre of the parcel in which that lies.
    center: [f32; 3],
    /// Metres from there to the farthest member.
    radius: f64,
    peers: Vec<PeerAnswer>,
    /// Where its members meet, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<Transport>,
}

impl IslandAnswer {
    /// `peer` gives the peer of an address, if it is here.
    pub(crate) fn new(
        island: IslandCopy,
        peer: impl Fn(Address) -> Option<Peer>,
        settings: &Settings,
    ) -> Self {
        let here = island.members.iter().filter_map(|&address| Some((address, peer(address)?)));
        let here: Vec<(Address, Peer)> = here.collect();
        let places: Vec<Position> = here.iter().map(|(_, peer)| peer.position).collect();
        // Of members that were never heard of only the director knows where they are.
        let (center, radius) = extent(&places, settings.positions).or(island.reported).unwrap_or_default();
        Self {
            id: island.id.to_string(),
            max_peers: island.max_peers.unwrap_or(settings.max_island_size),
            center: [center.x, 0.0, center.z],
            radius,
            peers: here.iter().map(|(address, peer)| PeerAnswer::new(*address, peer)).collect(),
            transport: island.transport,
        }
    }
}

/// The centre of these places, and the distance to the farthest, in metres. It is made of what is
/// shown of them, and so tells no more.
fn extent(places: &[Position], positions: PositionPrecision) -> Option<(Position, f64)> {
    if places.is_empty() {
        return None;
    }
    let mean = |of: fn(&Position) -> f32| {
        let sum: f64 = places.iter().map(|place| f64::from(of(place))).sum();
        (sum / places.len() as f64) as f32
    };
    let center = positions.published(Position::new(mean(|place| place.x), 0.0, mean(|place| place.z)));
    let farthest = places.iter().map(|place| place.ground_distance_squared(center)).fold(0.0, f32::max);
    Some((center, f64::from(farthest.sqrt())))
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Coordinates {
    x: i32,
    y: i32,
}

/// How many peers stand on a parcel.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParcelAnswer {
    peers_count: usize,
    parcel: Coordinates,
}

/// How many peers stand on each parcel, when they stand on these.
pub(crate) fn count_by_parcel(parcels: Vec<Parcel>) -> BTreeMap<Parcel, usize> {
    let mut counts = BTreeMap::new();
    for parcel in parcels {
        *counts.entry(parcel).or_default() += 1;
    }
    counts
}

pub(crate) fn parcels(counts: BTreeMap<Parcel, usize>) -> Vec<ParcelAnswer> {
    let answer = |(Parcel { x, y }, peers_count)| ParcelAnswer { peers_count, parcel: Coordinates { x, y } };
    counts.into_iter().map(answer).collect()
}

/// A scene with people in it; where no scene is known, a parcel.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HotScene {
    /// The entity's in the content service; of a parcel, its coordinates.
    id: String,
    /// Empty where none is known.
    name: String,
    base_coords: [i32; 2],
    users_total_count: usize,
    /// All parcels of the scene.
    parcels: Vec<[i32; 2]>,
    realms: Vec<HotRealm>,
    /// The URL of a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbnail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

/// A realm in which people are in a scene: this one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HotRealm {
    server_name: String,
    url: String,
    users_count: usize,
    max_users: usize,
    /// The parcel of each of them.
    user_parcels: Vec<[i32; 2]>,
}

/// Where people are, most people first. What nobody has named yet stands for itself, parcel by parcel.
pub(crate) fn hot_scenes(
    counts: BTreeMap<Parcel, usize>,
    scenes: &Scenes,
    settings: &Settings,
) -> Vec<HotScene> {
    let mut hot: BTreeMap<String, HotScene> = BTreeMap::new();
    for (parcel, count) in counts {
        let scene = scenes.at(parcel);
        let id = scene.map_or_else(|| parcel.to_string(), |scene| scene.id.clone());
        let hot = hot.entry(id).or_insert_with_key(|id| {
            let own = [parcel];
            let parcels = scene.map_or(&own[..], |scene| &scene.parcels);
            HotScene {
                id: id.clone(),
                name: scene.map(|scene| scene.name.clone()).unwrap_or_default(),
                base_coords: coordinates(scene.map_or(parcel, |scene| scene.base)),
                users_total_count: 0,
                parcels: parcels.iter().copied().map(coordinates).collect(),
                realms: vec![HotRealm {
                    server_name: settings.realm_name.clone(),
                    url: settings.public_url.clone(),
                    users_count: 0,
                    max_users: settings.max_users,
                    user_parcels: Vec::new(),
                }],
                thumbnail: scene.and_then(|scene| scene.thumbnail.clone()),
                description: scene.and_then(|scene| scene.description.clone()),
            }
        });
        hot.users_total_count += count;
        for realm in &mut hot.realms {
            realm.users_count += count;
            realm.user_parcels.extend(vec![coordinates(parcel); count]);
        }
    }
    let mut hot: Vec<HotScene> = hot.into_values().collect();
    hot.sort_by_key(|scene| (std::cmp::Reverse(scene.users_total_count), scene.base_coords));
    hot
}

fn coordinates(parcel: Parcel) -> [i32; 2] {
    [parcel.x, parcel.y]
}
