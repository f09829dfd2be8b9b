//! The journal, the state, and the roles.

// Helpers of tests: see `allow-unwrap-in-tests` in clippy.toml.
#![allow(clippy::unwrap_used)]

use moderation::{
    Act, Actor, Channels, Effect, Entry, Forbidden, GapError, InvalidAct, Role, Scope, ScopeError, Snapshot,
    State, Subject,
};
use proptest::prelude::*;
use protocol::Address;

fn wallet(number: u8) -> Address {
    Address::new([number; 20])
}

fn scene(name: &str) -> Scope {
    format!("scene:{name}").parse().unwrap()
}

fn ban(number: u8, scope: Scope, until_ms: Option<u64>) -> Act {
    Act::Ban { subject: Subject::Wallet(wallet(number)), scope, until_ms }
}

fn unban(number: u8, scope: Scope) -> Act {
    Act::Unban { subject: Subject::Wallet(wallet(number)), scope }
}

fn mute(number: u8, scope: Scope, (voice, chat): (bool, bool), until_ms: Option<u64>) -> Act {
    Act::Mute { wallet: wallet(number), scope, channels: Channels { voice, chat }, until_ms }
}

fn grant(number: u8, role: &str) -> Act {
    Act::GrantRole { wallet: wallet(number), role: role.parse().unwrap() }
}

/// Applies acts, one a second.
fn state_of(acts: impl IntoIterator<Item = Act>) -> State {
    let mut state = State::default();
    acts.into_iter().for_each(|act| drop(apply(&mut state, act)));
    state
}

fn apply(state: &mut State, act: Act) -> Vec<Effect> {
    let sequence = state.sequence() + 1;
    let actor = Actor::Operator("test".to_owned());
    state
        .apply(&Entry { sequence, at_ms: sequence * 1_000, actor, act, reason: "because".to_owned() })
        .unwrap()
}

fn effects(state: &mut State, acts: impl IntoIterator<Item = Act>) -> Vec<Effect> {
    acts.into_iter().flat_map(|act| apply(state, act)).collect()
}

#[test]
fn ban_in_a_scene_is_none_in_the_realm() {
    let mut state =
        state_of([ban(1, scene("casino"), None), ban(1, scene("plaza"), None), ban(2, Scope::Realm, None)]);
    assert!(
        state.ban(wallet(1), &Scope::Realm).is_none() && state.ban(wallet(1), &scene("casino")).is_some()
    );
    let scenes: Vec<&str> = state.scene_bans(wallet(1)).map(|(name, _)| name.as_str()).collect();
    assert_eq!((scenes, state.scene_bans(wallet(2)).count()), (vec!["casino", "plaza"], 0));
    let subject = Subject::Wallet(wallet(1));
    let lifted = effects(&mut state, [unban(1, scene("casino")), unban(1, scene("casino"))]);
    assert_eq!(lifted, [Effect::Unbanned { subject, scope: scene("casino") }], "the second lifts nothing");
}

#[test]
fn network_ban_includes_all_its_addresses() {
    let network =
        |text: &str| Act::Ban { subject: text.parse().unwrap(), scope: Scope::Realm, until_ms: None };
    let state =
        state_of(["203.0.113.77/24", "198.51.100.4", "2001:db8::/32", "::ffff:192.0.2.0/120"].map(network));
    let is_banned = |address: &str| state.network_ban(address.parse().unwrap()).is_some();
    for banned in ["203.0.113.1", "::ffff:203.0.113.1", "198.51.100.4", "2001:db8:1::1", "192.0.2.9"] {
        assert!(is_banned(banned), "{banned}");
    }
    for free in ["203.0.114.1", "198.51.100.5", "2001:db9::1", "::1"] {
        assert!(!is_banned(free), "{free}");
    }
}

#[test]
fn mutes_of_realm_and_scene_add_up() {
    let (realm, casino) = (Scope::Realm, scene("casino"));
    let mut state = state_of([
        mute(1, realm.clone(), (true, false), None),
        mute(1, casino.clone(), (false, true), Some(9_000)),
        mute(2, realm, (true, true), None),
    ]);
    let Scope::Scene(name) = &casino else { unreachable!() };
    let muted = |state: &State, scene| {
        let Channels { voice, chat } = state.muted(wallet(1), scene);
        (voice, chat)
    };
    assert_eq!((muted(&state, None), muted(&state, Some(name))), ((true, false), (true, true)));
    assert_eq!(state.expire(8_999), []);
    assert_eq!(state.expire(9_000), [Effect::MutesChanged { wallet: wallet(1) }]);
    assert_eq!(muted(&state, Some(name)), (true, false));
    let unmute = |voice, chat| Act::Unmute {
        wallet: wallet(1),
        scope: Scope::Realm,
        channels: Channels { voice, chat },
    };
    let changes = effects(&mut state, [unmute(false, true), unmute(true, true)]);
    assert_eq!(changes, [Effect::MutesChanged { wallet: wallet(1) }], "chat was not muted");
    assert_eq!(state.muted(wallet(1), None), Channels::default());
}

#[test]
fn later_act_replaces_an_earlier_one() {
    let mut state = state_of([ban(1, Scope::Realm, Some(5_000)), ban(1, Scope::Realm, Some(9_000))]);
    assert_eq!((state.next_expiry_ms(), state.expire(5_000)), (Some(9_000), vec![]));
    assert!(!state.is_in_force(1) && state.is_in_force(2));
    state.expire(9_000);
    assert!(!state.is_in_force(2) && state.next_expiry_ms().is_none());
}

#[test]
fn repeated_entry_has_no_effect_and_a_gap_is_an_error() {
    let mut state = state_of([ban(1, Scope::Realm, None), unban(1, Scope::Realm)]);
    let entry = |sequence| Entry {
        sequence,
        at_ms: 0,
        actor: Actor::Wallet(wallet(9)),
        act: ban(1, Scope::Realm, None),
        reason: String::new(),
    };
    assert_eq!(state.apply(&entry(1)), Ok(vec![]));
    assert_eq!(state.apply(&entry(4)), Err(GapError { last: 2, found: 4 }));
    assert!(state.ban(wallet(1), &Scope::Realm).is_none() && state.sequence() == 2);
}

#[test]
fn rank_decides_upon_whom_a_wallet_may_act() {
    let casino = scene("casino");
    let state = state_of([
        grant(1, "realm-admin"),
        grant(2, "realm-moderator"),
        grant(3, "scene-owner:casino"),
        grant(4, "scene-moderator:casino"),
        grant(5, "scene-moderator:plaza"),
    ]);
    let judge = |actor: u8, act: Act| state.authorize(&Actor::Wallet(wallet(actor)), &act).err();
    let (no_role, protected) = (Some(Forbidden::NoRole), Some(Forbidden::Protected));
    // By actor 1 to 6: a ban of wallets 1 to 6 in the casino.
    for (actor, expected) in [
        (1, [protected, None, None, None, None, None]),
        (2, [protected, protected, None, None, None, None]),
        (3, [protected, protected, protected, None, None, None]),
        (4, [protected, protected, protected, protected, None, None]),
        (5, [no_role; 6]),
        (6, [no_role; 6]),
    ] {
        let actual = [1, 2, 3, 4, 5, 6].map(|subject| judge(actor, ban(subject, casino.clone(), None)));
        assert_eq!(actual, expected, "actor {actor}");
    }
    assert_eq!(judge(3, ban(6, Scope::Realm, None)), no_role, "only in its scene");
    assert_eq!(judge(3, grant(6, "scene-moderator:casino")), None);
    assert_eq!(judge(4, grant(6, "scene-moderator:casino")), no_role);
    assert_eq!(
        [judge(2, grant(6, "scene-owner:casino")), judge(1, grant(6, "realm-admin"))],
        [no_role, None]
    );
    let network =
        Act::Ban { subject: "203.0.113.0/24".parse().unwrap(), scope: Scope::Realm, until_ms: None };
    assert_eq!([judge(3, network.clone()), judge(2, network.clone())], [no_role, None]);
    assert_eq!(state.authorize(&Actor::Operator("console".to_owned()), &network), Ok(()));
}

#[test]
fn invalid_act_is_refused_with_its_reason() {
    let network = |text: &str, scope| Act::Ban { subject: text.parse().unwrap(), scope, until_ms: None };
    let long = "x".repeat(1_001);
    for (act, reason, expected) in [
        (ban(1, Scope::Realm, None), long.as_str(), Err(InvalidAct::Reason)),
        (network("203.0.113.0/24", scene("casino")), "", Err(InvalidAct::NetworkInScene)),
        (network("0.0.0.0/0", Scope::Realm), "", Err(InvalidAct::LargeNetwork)),
        (network("2001::/15", Scope::Realm), "", Err(InvalidAct::LargeNetwork)),
        (network("10.0.0.0/8", Scope::Realm), "", Ok(())),
        (mute(1, Scope::Realm, (false, false), None), "", Err(InvalidAct::NoChannel)),
        (mute(1, Scope::Realm, (true, false), Some(1_000)), "", Err(InvalidAct::Ended)),
        (ban(1, Scope::Realm, Some(1_001)), "", Ok(())),
        (Act::Warn { wallet: wallet(1), scope: Scope::Realm }, "", Err(InvalidAct::NoReason)),
    ] {
        assert_eq!(act.validate(reason, 1_000), expected, "{act:?}");
    }
    assert_eq!("scene:".parse::<Scope>(), Err(ScopeError::SceneName));
    assert_eq!("galaxy".parse::<Scope>(), Err(ScopeError::Scope));
    assert_eq!("scene-owner".parse::<Role>(), Err(ScopeError::Role));
    assert_eq!("203.0.113.0/33".parse::<Subject>(), Err(ScopeError::Subject));
}

#[test]
fn entry_is_one_flat_object() {
    let entry = Entry {
        sequence: 7,
        at_ms: 1_700_000_000_000,
        actor: Actor::Wallet(wallet(2)),
        act: mute(1, scene("casino"), (false, true), Some(1_700_000_060_000)),
        reason: "spam".to_owned(),
    };
    let json = serde_json::json!({
        "sequence": 7,
        "atMs": 1_700_000_000_000_u64,
        "actor": { "wallet": "0x0202020202020202020202020202020202020202" },
        "act": "mute",
        "wallet": "0x0101010101010101010101010101010101010101",
        "scope": "scene:casino",
        "channels": { "voice": false, "chat": true },
        "untilMs": 1_700_000_060_000_u64,
        "reason": "spam",
    });
    assert_eq!(serde_json::to_value(&entry).unwrap(), json);
    assert_eq!(serde_json::from_value::<Entry>(json).unwrap(), entry);
}

#[test]
fn snapshot_of_another_version_is_refused() {
    let mut json = serde_json::to_value(Snapshot::from(&state_of([ban(1, Scope::Realm, None)]))).unwrap();
    assert!(serde_json::from_value::<Snapshot>(json.clone()).is_ok());
    json["version"] = 2.into();
    let error = serde_json::from_value::<Snapshot>(json).unwrap_err();
    assert!(error.to_string().contains("unknown version 2"), "{error}");
}

fn any_act() -> impl Strategy<Value = Act> {
    let scope = prop_oneof![Just(Scope::Realm), Just(scene("casino")), Just(scene("plaza"))];
    let until = prop_oneof![Just(None), (1_u64..60_000).prop_map(Some)];
    let role = prop_oneof![Just("realm-admin"), Just("scene-owner:casino"), Just("scene-moderator:plaza")];
    (0_u8..6, 0_u8..4, scope, until, role, any::<(bool, bool)>()).prop_map(
        |(kind, number, scope, until_ms, role, (voice, chat))| {
            let (wallet, role) = (wallet(number), role.parse().unwrap());
            match kind {
                0 => ban(number, scope, until_ms),
                1 => unban(number, scope),
                2 => mute(number, scope, (voice, chat), until_ms),
                3 => Act::Unmute { wallet, scope, channels: Channels { voice, chat } },
                4 => Act::GrantRole { wallet, role },
                _ => Act::RevokeRole { wallet, role },
            }
        },
    )
}

proptest! {
    /// A process that starts from a snapshot has the state of one that has followed the journal from the beginning.
    #[test]
    fn snapshot_and_later_entries_give_the_same_state(
        acts in prop::collection::vec(any_act(), 0..40),
        at in 0_usize..40,
    ) {
        let at = at.min(acts.len());
        let before = state_of(acts[..at].iter().cloned());
        let json = serde_json::to_string(&Snapshot::from(&before)).unwrap();
        let mut restored = State::from(serde_json::from_str::<Snapshot>(&json).unwrap());
        prop_assert_eq!(&restored, &before);
        acts[at..].iter().for_each(|act| drop(apply(&mut restored, act.clone())));
        let whole = state_of(acts.iter().cloned());
        prop_assert_eq!(&restored, &whole);
        // Each ban names an entry that a store keeps.
        prop_assert!(whole.bans().all(|(.., ban)| whole.is_in_force(ban.sequence)));
    }
}
