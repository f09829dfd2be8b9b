//! The planner of one peer-to-peer island: which members hold a link, how broadcasts are forwarded over the links, and
//! whether the mesh holds its island.
//!
//! A sans-IO state machine: it owns no socket, clock or source of randomness. The caller passes every event together
//! with its time, calls [`Mesh::tick`] at [`Mesh::next_deadline`], and sends each member the [`Plan`]s that this returns.
//! The mesh is deterministic: the same inputs at the same times give the same outputs. Targets depend on the history, because
//! links are kept; only [`Mesh::restore`] does not depend on the order of the members.
//!
//! # Example
//!
//! Two members join, link as their plans state, and report so.
//!
//! ```
//! use std::time::Duration;
//!
//! use mesh::{LinkReport, Mesh, Settings};
//! use protocol::{Address, Position};
//!
//! let mut mesh = Mesh::new(Settings::default()).unwrap();
//! let (alice, bob) = (Address::new([1; 20]), Address::new([2; 20]));
//! let start = Duration::ZERO;
//! let a = mesh.join(alice, Position::new(0.0, 0.0, 0.0), false, start).unwrap();
//! let b = mesh.join(bob, Position::new(5.0, 0.0, 0.0), false, start).unwrap();
//!
//! // 100 ms later both are sent a plan: each should link to the other, and the higher address makes the offer.
//! let now = mesh.next_deadline().unwrap();
//! let plans = mesh.tick(now).plans;
//! assert_eq!(plans.len(), 2);
//! assert_eq!((plans[1].0, plans[1].1.links[0].alias, plans[1].1.links[0].initiate), (bob, a, true));
//! // Until the link is up, each serves the other through its gateway.
//! assert_eq!(plans[0].1.routes[0].fallback, [b]);
//!
//! // Both report the link.
//! for (member, other) in [(alice, b), (bob, a)] {
//!     let report = LinkReport { version: 1, connected_to: vec![other], ..LinkReport::default() };
//!     mesh.report(member, &report, now);
//! }
//! let plans = mesh.tick(now + Duration::from_millis(100)).plans;
//! let own_route = &plans[0].1.routes[0];
//! assert_eq!((own_route.source, &own_route.to[..], &own_route.fallback[..]), (a, &[b][..], &[][..]));
//! ```
//!
//! # Time
//!
//! `now` is the time since a moment that the caller chooses once and keeps. If it runs backwards, every pending timeout
//! takes longer.
//!
//! # Links
//!
//! With at most `max_links + 1` members, every two of them should hold a link. In a larger mesh, members that are near
//! each other do, up to [`Settings::target_links`] each; [`Settings::max_links`] bounds the links of a member. Further
//! links make the graph of links
//!
//! - 2-connected: it stays connected when any one member departs;
//! - shallow: every member reaches every other within ⌈log₂ members⌉ + 2 hops.
//!
//! Both hold for at least three links a member, as long as failed links leave a choice; up to 200 members are tested.
//! A mesh of members with two links each is a ring. Distances are measured on the ground (x and z).
//!
//! Targets change when members join or leave, and when a link is lost or fails. A link fails when both ends report so,
//! or one end does and it is not up 5 s later; it is not tried again for [`Settings::retry_after`], twice as long with each
//! further time. A lost link is replaced by another if there is a choice. Positions alone change links only when a member
//! has been nearer than the farthest neighbour of both for 10 s, by at most one new link a member in 10 s. Such an exchange
//! is make before break: the old link is dropped after the new one is up.
//!
//! # Trees
//!
//! A link is up while both ends report it and it is a target. For each source there is one broadcast tree over these
//! links, with the fewest hops to each member. A [`Route`] is one member's part of it: packets of `source` arrive from
//! `from` and are forwarded to each of `to`. Every member that a path reaches so receives each packet once. The source
//! sends packets for its `fallback` through its gateway.
//!
//! # Versions
//!
//! A packet carries the version of its source's plan, by which relays choose the table. All members that paths join have
//! the same version, so every relay knows it as soon as the plans have arrived: when the plan of one member changes, all
//! members joined to it are sent the new version. Members of other parts are sent nothing.
//!
//! Inputs are collected for [`Settings::debounce`] from the first one on, and become one version. A member that reports
//! an older version 2 s after it was sent a plan is sent that plan again.
//!
//! # Health
//!
//! The mesh cannot hold its island when for 5 s a member had neither a path to another nor a usable fallback, or when for
//! 10 s more than [`Settings::max_fallback_share`] of the deliveries needed the fallback. Pairs with a new member do not
//! count for [`Settings::formation`] after it joined. [`Update::failure`] reports each failing episode once, and names
//! members that have never reported: their clients may not support the mesh. Health, retries and exchanges are checked once
//! a second, so each of these times may take up to 1 s longer.
//!
//! # Resuming
//!
//! The state of a mesh ends with its process and is not persisted. A new planner [restores](Mesh::restore) it from the
//! reports of the members, without breaking a link. The caller should collect reports for a few seconds first.

mod exchanges;
mod health;
mod links;
mod mesh;
mod output;
mod plan;
mod publisher;
mod report;
mod restore;
mod settings;
mod state;
mod topology;
mod trees;

pub use health::{Failure, FailureCause};
pub use mesh::Mesh;
pub use output::{JoinError, RestoreError, SilentMember, Update};
pub use plan::{Alias, Link, Plan, PlanMember, Route};
pub use report::{LinkReport, RestoredMember, RestoredState};
pub use settings::{Settings, SettingsError};
