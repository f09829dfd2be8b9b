//! The URL of the signalling socket.

use url::Url;

use super::error::JoinError;

/// The version of the signalling protocol. From 13 on, Leave messages state an action.
const PROTOCOL: &str = "15";

/// The URL that joins with this token, or that resumes the session of this sid.
///
/// The participant subscribes to no media (`auto_subscribe=0`): data needs no subscription, and otherwise the
/// server would send it the audio of all others.
pub(crate) fn signal_url(server: &str, token: &str, resumed_sid: Option<&str>) -> Result<Url, JoinError> {
    let mut url = Url::parse(server).map_err(|error| JoinError::Url(error.to_string()))?;
    let scheme = match url.scheme() {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        other => {
            return Err(JoinError::Url(format!("the scheme {other} is neither of WebSocket nor of HTTP")));
        }
    };
    if !url.has_host() || url.set_scheme(scheme).is_err() {
        return Err(JoinError::Url("it has no host".to_owned()));
    }
    let path = format!("{}/rtc", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_fragment(None);
    url.set_query(None);
    let mut query = url.query_pairs_mut();
    query
        .append_pair("access_token", token)
        .append_pair("auto_subscribe", "0")
        .append_pair("protocol", PROTOCOL)
        .append_pair("sdk", "rust");
    if let Some(sid) = resumed_sid {
        query.append_pair("reconnect", "1").append_pair("sid", sid);
    }
    drop(query);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(server: &str, resumed_sid: Option<&str>) -> String {
        signal_url(server, "a.b-c", resumed_sid).unwrap().to_string()
    }

    const QUERY: &str = "access_token=a.b-c&auto_subscribe=0&protocol=15&sdk=rust";

    #[test]
    fn url_keeps_host_port_and_path_prefix() {
        assert_eq!(text("ws://127.0.0.1:7880", None), format!("ws://127.0.0.1:7880/rtc?{QUERY}"));
        assert_eq!(text("wss://host/", None), format!("wss://host/rtc?{QUERY}"));
        assert_eq!(text("wss://host/a/b/", None), format!("wss://host/a/b/rtc?{QUERY}"));
        assert_eq!(text("https://host/a?x=1#y", None), format!("wss://host/a/rtc?{QUERY}"));
    }

    #[test]
    fn resumption_names_the_session() {
        assert_eq!(text("ws://h", Some("PA_1")), format!("ws://h/rtc?{QUERY}&reconnect=1&sid=PA_1"));
    }

    #[test]
    fn other_urls_are_refused_with_the_reason() {
        for url in ["", "host", "ftp://host", "data:x"] {
            let error = signal_url(url, "t", None).unwrap_err();
            assert!(matches!(error, JoinError::Url(_)), "{url}: {error}");
            assert!(!error.is_temporary());
        }
    }
}
