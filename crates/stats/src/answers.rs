//! The bodies of the answers, as clients and sites of the field read them.

use std::collections::BTreeMap;

use protocol::{Address, Parcel, v3::IslandData};
use serde::Serialize;

use crate::{
    Settings,
    presence::{Peer, Presence},
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PeerAnswer {
    id: String,
    address: String,
    last_ping: u64,
    parcel: [i32; 2],
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

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IslandAnswer {
    id: String,
    max_peers: u32,
    center: [f32; 3],
    radius: f64,
    peers: Vec<PeerAnswer>,
}

impl IslandAnswer {
    pub(crate) fn new(island: &IslandData, presence: &Presence) -> Self {
        let center = island.center.unwrap_or_default();
        let addresses = island.peers.iter().filter_map(|peer| peer.parse().ok());
        let peers = addresses.filter_map(|address| Some(PeerAnswer::new(address, presence.peer(address)?)));
        Self {
            id: island.id.clone(),
            max_peers: island.max_peers,
            center: [center.x, 0.0, center.z],
            radius: island.radius,
            peers: peers.collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Coordinates {
    x: i32,
    y: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParcelAnswer {
    peers_count: usize,
    parcel: Coordinates,
}

/// How many peers stand on each parcel.
fn counts(presence: &Presence) -> BTreeMap<Parcel, usize> {
    let mut counts = BTreeMap::new();
    for (_, peer) in presence.peers() {
        *counts.entry(peer.position.parcel()).or_default() += 1;
    }
    counts
}

pub(crate) fn parcels(presence: &Presence) -> Vec<ParcelAnswer> {
    let answer = |(Parcel { x, y }, peers_count)| ParcelAnswer { peers_count, parcel: Coordinates { x, y } };
    counts(presence).into_iter().map(answer).collect()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HotScene {
    id: String,
    name: String,
    base_coords: [i32; 2],
    users_total_count: usize,
    parcels: Vec<[i32; 2]>,
    realms: Vec<HotRealm>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HotRealm {
    server_name: String,
    url: String,
    users_count: usize,
    max_users: usize,
    user_parcels: Vec<[i32; 2]>,
}

/// Where people are, most people first. Scenes are the content service's to name; without one,
/// each parcel stands for its own.
pub(crate) fn hot_scenes(presence: &Presence, settings: &Settings) -> Vec<HotScene> {
    let mut scenes: Vec<HotScene> = counts(presence)
        .into_iter()
        .map(|(parcel, count)| {
            let coordinates = [parcel.x, parcel.y];
            let realm = HotRealm {
                server_name: settings.realm_name.clone(),
                url: settings.public_url.clone(),
                users_count: count,
                max_users: settings.max_users,
                user_parcels: vec![coordinates; count],
            };
            HotScene {
                id: parcel.to_string(),
                name: String::new(),
                base_coords: coordinates,
                users_total_count: count,
                parcels: vec![coordinates],
                realms: vec![realm],
            }
        })
        .collect();
    scenes.sort_by_key(|scene| std::cmp::Reverse(scene.users_total_count));
    scenes
}
