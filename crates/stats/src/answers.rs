//! The JSON bodies of the responses, in the format that existing clients and sites parse.

use std::collections::BTreeMap;

use protocol::{Address, Parcel, Position, PositionPrecision};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{event::Transport, peer::Peer, presence::IslandCopy, scenes::Scenes, settings::Settings};

/// A peer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PeerAnswer {
    /// The address, in lower case.
    id: String,
    address: String,
    /// The time of the last heartbeat, in milliseconds since the Unix epoch.
    last_ping: u64,
    parcel: [i32; 2],
    /// Metres; y is up. The centre of the parcel with y 0 if the realm publishes only parcels.
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
    /// The mean of the positions of the members, on the ground, in metres. If the realm publishes only
    /// parcels, the centre of the parcel in which the mean lies.
    center: [f32; 3],
    /// Metres from `center` to the farthest member.
    radius: f64,
    peers: Vec<PeerAnswer>,
    /// The transport and node of the island's room, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<Transport>,
    /// The participants in the room, if it is on a LiveKit server: members that have joined it, and former
    /// members that have not left it yet. Without agents and hidden participants.
    #[serde(skip_serializing_if = "Option::is_none")]
    participants: Option<u32>,
}

impl IslandAnswer {
    /// The response for an island. `peer` returns the present peer with an address, if there is one.
    pub(crate) fn new(
        island: IslandCopy,
        peer: impl Fn(Address) -> Option<Peer>,
        settings: &Settings,
    ) -> Self {
        let peers = island.members.iter().filter_map(|&address| Some((address, peer(address)?)));
        let peers: Vec<(Address, Peer)> = peers.collect();
        let positions: Vec<Position> = peers.iter().map(|(_, peer)| peer.position).collect();
        // Without a heartbeat of any member, only the director's report has the extent.
        let (center, radius) = extent(&positions, settings.positions).or(island.reported).unwrap_or_default();
        Self {
            id: island.id.to_string(),
            max_peers: island.max_peers.unwrap_or(settings.max_island_size),
            center: [center.x, 0.0, center.z],
            radius,
            peers: peers.iter().map(|(address, peer)| PeerAnswer::new(*address, peer)).collect(),
            transport: island.transport,
            participants: island.participants,
        }
    }
}

/// The centre of these positions, and the distance to the farthest, in metres. It is computed from the
/// published form of the positions, and so reveals no more than that.
fn extent(positions: &[Position], precision: PositionPrecision) -> Option<(Position, f64)> {
    if positions.is_empty() {
        return None;
    }
    let mean = |axis: fn(&Position) -> f32| {
        let sum: f64 = positions.iter().map(|position| f64::from(axis(position))).sum();
        (sum / positions.len() as f64) as f32
    };
    let (x, z) = (mean(|position| position.x), mean(|position| position.z));
    let center = precision.published(Position::new(x, 0.0, z));
    let distances = positions.iter().map(|position| position.ground_distance_squared(center));
    let farthest = distances.fold(0.0, f32::max);
    Some((center, f64::from(farthest.sqrt())))
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Coordinates {
    x: i32,
    y: i32,
}

/// The number of peers on a parcel.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParcelAnswer {
    peers_count: usize,
    parcel: Coordinates,
}

/// The number of peers on each parcel. `parcels` has the parcel of each peer.
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

/// A scene with peers in it, or a parcel with peers if its scene is not known.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HotScene {
    /// The id of the scene's entity in the content service; for a parcel, its coordinates.
    id: String,
    /// Empty if it is not known.
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

/// The realm with the peers in a scene: always this one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HotRealm {
    server_name: String,
    url: String,
    users_count: usize,
    max_users: usize,
    /// The parcel of each peer.
    user_parcels: Vec<[i32; 2]>,
}

/// The scenes with peers, the most populated first. A parcel without a known scene is an entry of its own.
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
