//! Removes ICE candidates that members of a mesh must not send each other (RFC 8839, section 5.1).

use std::net::IpAddr;

/// The candidates that may pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CandidatePolicy {
    /// Only candidates of TURN servers pass (`p2p.relay_only`), so that members do not learn each other's addresses.
    pub relay_only: bool,
    /// Loopback, unspecified, multicast and own addresses pass (`p2p.allow_private`).
    pub allow_private: bool,
    /// The addresses of the realm: a peer must not make others send packets there.
    pub own_addresses: Vec<IpAddr>,
}

/// The most candidates of a description. Further ones are removed.
const MAX_CANDIDATES: usize = 20;

/// An attribute of an SDP description with a candidate.
const CANDIDATE_LINE: &str = "a=candidate:";

impl CandidatePolicy {
    /// The description without candidates that must not pass. With [`Self::relay_only`] it also has no other
    /// address of its sender.
    pub(crate) fn filter_description(&self, sdp: &str) -> String {
        let mut kept = 0;
        let mut filtered = String::with_capacity(sdp.len());
        for line in sdp.lines() {
            let line = match line.strip_prefix(CANDIDATE_LINE) {
                Some(candidate) if kept < MAX_CANDIDATES => match self.filter(candidate) {
                    Some(candidate) => {
                        kept += 1;
                        format!("{CANDIDATE_LINE}{candidate}")
                    }
                    None => continue,
                },
                Some(_) => continue,
                None if self.relay_only => without_address(line),
                None => line.to_owned(),
            };
            filtered.push_str(&line);
            filtered.push_str("\r\n");
        }
        filtered
    }

    /// The candidate, the JSON of an `RTCIceCandidateInit`, if it may pass. An empty candidate ends the list, and
    /// passes.
    pub(crate) fn filter_candidate(&self, json: &str) -> Option<String> {
        let mut init: serde_json::Value = serde_json::from_str(json).ok()?;
        let candidate = init.get("candidate")?.as_str()?;
        if candidate.is_empty() {
            return Some(json.to_owned());
        }
        let filtered = self.filter(candidate.strip_prefix("candidate:").unwrap_or(candidate))?;
        init["candidate"] = format!("candidate:{filtered}").into();
        Some(init.to_string())
    }

    /// A candidate without its prefix, if it may pass. That of a TURN server names the sender's own address in
    /// `raddr` (RFC 8839): with [`Self::relay_only`] it is replaced.
    fn filter(&self, candidate: &str) -> Option<String> {
        let mut fields: Vec<&str> = candidate.split_ascii_whitespace().collect();
        let (address, kind) = match fields[..] {
            [_, _, _, _, address, _, "typ", kind, ..] => (address, kind),
            _ => return None,
        };
        if self.relay_only && kind != "relay" {
            return None;
        }
        // A name, such as one of mDNS, is resolved by its recipient only within its own network.
        if let Ok(address) = address.parse::<IpAddr>()
            && !self.allows(address.to_canonical())
        {
            return None;
        }
        if self.relay_only {
            for index in 8..fields.len().saturating_sub(1) {
                match fields[index] {
                    "raddr" => fields[index + 1] = "0.0.0.0",
                    "rport" => fields[index + 1] = "9",
                    _ => {}
                }
            }
        }
        Some(fields.join(" "))
    }

    fn allows(&self, address: IpAddr) -> bool {
        let is_special = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        self.allow_private || !(is_special || is_broadcast || self.own_addresses.contains(&address))
    }
}

/// A line of a description, with an unspecified address instead of its own one (RFC 8866: `c=` and `o=`; RFC 3605:
/// `a=rtcp:`).
fn without_address(line: &str) -> String {
    let has_address = ["c=", "o=", "a=rtcp:"].iter().any(|prefix| line.starts_with(prefix));
    match line.split_once("IN IP") {
        Some((before, _)) if has_address => format!("{before}IN IP4 0.0.0.0"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "1 1 udp 2130706431 203.0.113.7 50000 typ host";
    const REFLEXIVE: &str = "2 1 udp 1694498815 198.51.100.1 50001 typ srflx raddr 10.0.0.7 rport 50000";
    const RELAY: &str = "3 1 udp 16777215 192.0.2.1 60000 typ relay raddr 198.51.100.1 rport 50001 ufrag x";
    const NAME: &str = "4 1 udp 2113937151 0ab1.local 50002 typ host generation 0";

    fn description(candidates: &[&str]) -> String {
        let mut text = "v=0\r\no=- 7 2 IN IP4 203.0.113.7\r\ns=-\r\nt=0 0\r\n\
                        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 203.0.113.7\r\n"
            .to_owned();
        for candidate in candidates {
            text += &format!("a=candidate:{candidate}\r\n");
        }
        text + "a=fingerprint:sha-256 AB:CD\r\n"
    }

    fn candidates(sdp: &str) -> Vec<&str> {
        sdp.lines().filter_map(|line| line.strip_prefix(CANDIDATE_LINE)).collect()
    }

    #[test]
    fn public_candidates_pass_unchanged() {
        let sdp = description(&[HOST, REFLEXIVE, RELAY, NAME]);
        assert_eq!(CandidatePolicy::default().filter_description(&sdp), sdp);
    }

    #[test]
    fn relay_only_leaves_no_address_of_the_sender() {
        let policy = CandidatePolicy { relay_only: true, ..CandidatePolicy::default() };
        let sdp = policy.filter_description(&description(&[HOST, REFLEXIVE, RELAY, NAME]));
        let relay = "3 1 udp 16777215 192.0.2.1 60000 typ relay raddr 0.0.0.0 rport 9 ufrag x";
        assert_eq!(candidates(&sdp), [relay]);
        for address in ["203.0.113.7", "198.51.100.1", "10.0.0.7", "local"] {
            assert!(!sdp.contains(address), "{address} in {sdp}");
        }
        assert!(sdp.contains("a=fingerprint:sha-256 AB:CD\r\n"));
        let trickled = |candidate: &str| {
            let json = serde_json::json!({ "candidate": format!("candidate:{candidate}"), "sdpMid": "0" });
            policy.filter_candidate(&json.to_string())
        };
        assert_eq!(trickled(HOST), None);
        assert_eq!(trickled(REFLEXIVE), None);
        let passed: serde_json::Value = serde_json::from_str(&trickled(RELAY).unwrap()).unwrap();
        assert_eq!(passed, serde_json::json!({ "candidate": format!("candidate:{relay}"), "sdpMid": "0" }));
    }

    #[test]
    fn special_and_own_addresses_are_removed() {
        let own_addresses = vec!["192.0.2.80".parse().unwrap()];
        let policy = CandidatePolicy { own_addresses, ..CandidatePolicy::default() };
        let special = [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "224.0.0.251",
            "ff02::fb",
            "255.255.255.255",
            "::ffff:127.0.0.1",
            "192.0.2.80",
            "::ffff:192.0.2.80",
        ];
        let all = special.map(|address| format!("1 1 udp 1 {address} 5000 typ host"));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let sdp = description(&[&all[..], &[HOST]].concat());
        assert_eq!(candidates(&policy.filter_description(&sdp)), [HOST]);
        let policy = CandidatePolicy { allow_private: true, ..policy };
        assert_eq!(candidates(&policy.filter_description(&sdp)).len(), special.len() + 1);
    }

    #[test]
    fn candidates_are_counted_and_malformed_ones_removed() {
        let policy = CandidatePolicy::default();
        let sdp = policy.filter_description(&description(&[HOST; 30]));
        assert_eq!(candidates(&sdp).len(), MAX_CANDIDATES);
        let malformed = ["", "1 1 udp", "1 1 udp 1 203.0.113.7 5000 kind host"];
        assert!(candidates(&policy.filter_description(&description(&malformed))).is_empty());
        for json in ["", "{}", r#"{"candidate":7}"#, r#"{"candidate":"candidate:1 1 udp"}"#] {
            assert_eq!(policy.filter_candidate(json), None, "{json}");
        }
        let end = r#"{"candidate":""}"#;
        assert_eq!(policy.filter_candidate(end).as_deref(), Some(end));
    }
}
