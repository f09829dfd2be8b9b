//! Moderation: the acts of a journal, the state that they produce, and the roles that permit them.
//!
//! Pure: no clock, file, socket or randomness. The caller passes the time as milliseconds since the Unix epoch.
//!
//! One writer appends [`Entry`]s to a journal after it has called [`Act::validate`] and [`State::authorize`]. Every process
//! applies them in order to its own [`State`], enforces the returned [`Effect`]s, and calls [`State::expire`] at
//! [`State::next_expiry_ms`]. A [`Snapshot`] has all acts in force, so that older entries may be deleted.
//!
//! # Example
//!
//! ```
//! use moderation::{Act, Actor, Effect, Entry, Scope, State, Subject};
//!
//! let mut state = State::default();
//! let subject: Subject = "0x0101010101010101010101010101010101010101".parse().unwrap();
//! let act = Act::Ban { subject, scope: Scope::Realm, until_ms: Some(5_000) };
//! let actor = Actor::Operator("console".to_owned());
//! act.validate("spam", 1_000).unwrap();
//! state.authorize(&actor, &act).unwrap();
//! let entry = Entry { sequence: 1, at_ms: 1_000, actor, act, reason: "spam".to_owned() };
//! assert_eq!(state.apply(&entry).unwrap(), [Effect::Banned { subject, scope: Scope::Realm }]);
//! let Subject::Wallet(wallet) = subject else { unreachable!() };
//! assert_eq!(state.ban(wallet, &Scope::Realm).unwrap().reason, "spam");
//!
//! assert_eq!(state.next_expiry_ms(), Some(5_000));
//! assert_eq!(state.expire(5_000), [Effect::Unbanned { subject, scope: Scope::Realm }]);
//! assert!(state.ban(wallet, &Scope::Realm).is_none());
//! ```

mod act;
mod authorize;
mod effect;
mod role;
mod scope;
mod snapshot;
mod state;

pub use act::{Act, Actor, Channels, Entry, InvalidAct, MAX_REASON_BYTES, MIN_PREFIX};
pub use authorize::Forbidden;
pub use effect::Effect;
pub use role::Role;
pub use scope::{SceneName, Scope, ScopeError, Subject};
pub use snapshot::Snapshot;
pub use state::{Channel, GapError, InForce, State};
