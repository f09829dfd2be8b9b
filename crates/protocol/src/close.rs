//! Close codes of WebSockets. `docs/close-codes.md` publishes them, and a test compares it with this file.

/// The reason for which a server closes a WebSocket: the published contract between Atoll's sockets and
/// clients.
///
/// Codes below 4000 are those of RFC 6455, section 7.4, and the IANA registry of close codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Close {
    /// Bytes that are not WebSocket frames.
    ProtocolError,
    /// A packet does not decode.
    Undecodable,
    /// A text frame; packets are binary frames.
    TextFrame,
    /// A message over the limit.
    TooBig,
    /// The server is about to stop. The client reconnects, to another server or to the next process of this
    /// one.
    Restarting,
    /// The server has no capacity for another session. The client retries later.
    Full,
    /// The sign-in or admission did not finish in time.
    HandshakeTimeout,
    /// The auth chain, or the address announced with it, was refused; the reason in the close frame gives the
    /// cause.
    AuthRefused,
    /// A packet that is not expected at this step of the handshake.
    OutOfOrder,
    /// A newer session of the same address took over.
    NewSession,
    /// The client did not answer pings.
    Silent,
    /// The client sent no heartbeat for longer than the server keeps a socket without one.
    Idle,
    /// The client reads too slowly: its queue of messages that must not be dropped overflowed.
    TooSlow,
    /// The address is signed in already, and this server keeps the older session.
    AlreadySignedIn,
    /// The access token is forged, expired, or for another room or address.
    TokenRefused,
    /// There is no such room, or it cannot be entered without an access token.
    UnknownRoom,
    /// The room has no seat left.
    RoomFull,
    /// The address is no longer a member of the room's island.
    Moved,
}

impl Close {
    /// All variants, in the order of their codes.
    pub const ALL: [Self; 18] = [
        Self::ProtocolError,
        Self::TextFrame,
        Self::Undecodable,
        Self::TooBig,
        Self::Restarting,
        Self::Full,
        Self::HandshakeTimeout,
        Self::AuthRefused,
        Self::OutOfOrder,
        Self::NewSession,
        Self::Silent,
        Self::Idle,
        Self::TooSlow,
        Self::AlreadySignedIn,
        Self::TokenRefused,
        Self::UnknownRoom,
        Self::RoomFull,
        Self::Moved,
    ];

    /// The code in the close frame.
    pub const fn code(self) -> u16 {
        match self {
            Self::ProtocolError => 1002,
            Self::TextFrame => 1003,
            Self::Undecodable => 1007,
            Self::TooBig => 1009,
            Self::Restarting => 1012,
            Self::Full => 1013,
            Self::HandshakeTimeout => 4000,
            Self::AuthRefused => 4001,
            Self::OutOfOrder => 4002,
            Self::NewSession => 4003,
            Self::Silent => 4004,
            Self::Idle => 4005,
            Self::TooSlow => 4006,
            Self::AlreadySignedIn => 4007,
            Self::TokenRefused => 4010,
            Self::UnknownRoom => 4011,
            Self::RoomFull => 4012,
            Self::Moved => 4013,
        }
    }

    /// The variant with this code.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|close| close.code() == code)
    }

    /// The text in the close frame, unless the server has a more precise one.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ProtocolError => "not a WebSocket frame",
            Self::TextFrame => "packets are binary frames",
            Self::Undecodable => "undecodable packet",
            Self::TooBig => "message too big",
            Self::Restarting => "server restarting",
            Self::Full => "server full",
            Self::HandshakeTimeout => "handshake took too long",
            Self::AuthRefused => "sign-in refused",
            Self::OutOfOrder => "packet out of order",
            Self::NewSession => "a newer session took over",
            Self::Silent => "no answer to pings",
            Self::Idle => "no heartbeat",
            Self::TooSlow => "reader too slow",
            Self::AlreadySignedIn => "already signed in elsewhere",
            Self::TokenRefused => "access token refused",
            Self::UnknownRoom => "no such room",
            Self::RoomFull => "room full",
            Self::Moved => "no longer a member of this island",
        }
    }

    /// Whether a client should reconnect to the same address by itself, after a backoff with jitter.
    /// Otherwise the client must change something first: its auth chain, its bytes, or its room (the next
    /// `island_changed` names it).
    pub const fn should_reconnect(self) -> bool {
        matches!(
            self,
            Self::Restarting
                | Self::Full
                | Self::HandshakeTimeout
                | Self::Silent
                | Self::Idle
                | Self::TooSlow
                | Self::AlreadySignedIn
                | Self::RoomFull
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_reasons_fit_a_close_frame() {
        for close in Close::ALL {
            assert_eq!(Close::from_code(close.code()), Some(close));
            // RFC 6455, 5.5: a control frame carries at most 125 bytes, two of them the code.
            assert!(close.reason().len() <= 123);
        }
        assert!(Close::ALL.is_sorted_by_key(|close| close.code()));
        assert_eq!(Close::from_code(1000), None);
    }

    #[test]
    fn published_table_matches_the_code() {
        let table = include_str!("../../../docs/close-codes.md");
        let rows: Vec<&str> =
            table.lines().filter(|line| line.starts_with("| 1") || line.starts_with("| 4")).collect();
        assert_eq!(rows.len(), Close::ALL.len());
        for (row, close) in rows.iter().zip(Close::ALL) {
            let advice = if close.should_reconnect() { "reconnect" } else { "stop" };
            let expected = format!("| {} | `{close:?}` | {} | {advice}", close.code(), close.reason());
            assert!(row.starts_with(&expected), "{row}\nshould begin with\n{expected}");
        }
    }
}
