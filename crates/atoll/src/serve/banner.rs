//! The banner that a process prints when it serves: the URLs of its endpoints.

use std::{fmt::Write as _, net::SocketAddr};

use crate::{output, role::Role};

/// The URLs at which clients reach the process.
pub(super) struct Urls {
    pub(super) http: String,
    pub(super) ws: String,
}

impl Urls {
    /// `public_url` is empty if the URL is that of the address.
    pub(super) fn new(public_url: &str, local: SocketAddr) -> Self {
        let http = match public_url {
            "" => format!("http://{local}"),
            url => url.trim_end_matches('/').to_owned(),
        };
        // http becomes ws and https wss.
        let ws = http.replacen("http", "ws", 1);
        Self { http, ws }
    }

    /// Prints the endpoints of these roles. Does not wait for the reader of the standard output.
    /// `metrics` is the metrics listener, if there is one.
    pub(super) fn print(&self, roles: &[Role], metrics: Option<SocketAddr>, admin: Option<SocketAddr>) {
        output::STDOUT.append(self.banner(roles, metrics, admin).as_bytes());
    }

    fn banner(&self, roles: &[Role], metrics: Option<SocketAddr>, admin: Option<SocketAddr>) -> String {
        let Self { http, ws } = self;
        let metrics_http = metrics.map_or_else(|| http.clone(), |metrics| format!("http://{metrics}"));
        let mut text = format!("Atoll {}: {}\n", env!("CARGO_PKG_VERSION"), title(roles));
        let mut line = |label: &str, at: &str| {
            // Writing to a `String` does not fail.
            let _ = writeln!(text, "  {label:<19} {at}");
        };
        for role in roles {
            match role {
                Role::Gateway => {
                    line("gateway", http);
                    line("about", &format!("{http}/about"));
                    line("archipelago socket", &format!("{ws}/archipelago/ws"));
                    line("rpc", &format!("{ws}/bff/rpc"));
                }
                Role::Rooms => {
                    line("rooms", &format!("{ws}/rooms/{{island}}"));
                    line("room status", &format!("{metrics_http}/rooms/status"));
                }
                // Only operators use a director, through its admin endpoints.
                Role::Director => {}
                Role::Stats => {
                    line("presence", &format!("{http}/peers /islands /parcels /hot-scenes"));
                    line("live feed", &format!("{http}/events"));
                }
            }
        }
        line("description", &format!("{http}/openapi.json"));
        line("health", &format!("{http}/health/ready"));
        line("metrics", &format!("{metrics_http}/metrics"));
        if roles.contains(&Role::Gateway) {
            let _ = writeln!(text, "Run bots:       atoll bots --count 20 --url {http}");
        }
        if let Some(admin) = admin {
            let _ = writeln!(text, "Explain:        atoll explain --at 0,0 --admin http://{admin}");
        }
        text
    }
}

fn title(roles: &[Role]) -> String {
    if roles == Role::ALL {
        return "a realm in one process".to_owned();
    }
    let names: Vec<String> = roles.iter().map(Role::to_string).collect();
    format!("{} of a realm", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banner_lists_only_the_roles_of_the_process() {
        let urls = Urls::new("https://rooms.example/", "127.0.0.1:5000".parse().unwrap());
        let banner = urls.banner(&[Role::Rooms], None, None);
        assert!(banner.contains(": rooms of a realm\n"), "{banner}");
        assert!(banner.contains("  rooms               wss://rooms.example/rooms/{island}\n"), "{banner}");
        for absent in ["gateway", "/about", "/peers", "Run bots", "Explain"] {
            assert!(!banner.contains(absent), "{absent}: {banner}");
        }
        let banner = urls.banner(&Role::ALL, None, Some("127.0.0.1:5001".parse().unwrap()));
        assert!(banner.contains(": a realm in one process\n"), "{banner}");
        for present in ["gateway", "rooms", "presence", "Run bots", "--admin http://127.0.0.1:5001\n"] {
            assert!(banner.contains(present), "{present}: {banner}");
        }
    }

    #[test]
    fn banner_names_the_metrics_listener() {
        let urls = Urls::new("https://rooms.example/", "127.0.0.1:5000".parse().unwrap());
        let banner = urls.banner(&[Role::Rooms], Some("10.0.0.1:9100".parse().unwrap()), None);
        for present in ["http://10.0.0.1:9100/metrics\n", "http://10.0.0.1:9100/rooms/status\n"] {
            assert!(banner.contains(present), "{present}: {banner}");
        }
        assert!(banner.contains("https://rooms.example/health/ready\n"), "{banner}");
    }
}
