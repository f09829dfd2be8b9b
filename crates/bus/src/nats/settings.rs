//! The settings of a connection to NATS.

use std::{fmt, path::PathBuf, time::Duration};

use protocol::subject::SubjectScheme;

/// The address of a NATS server, and the credentials for it.
#[derive(Clone)]
pub struct NatsSettings {
    /// `nats://host:port`, or `tls://`. Several servers of one cluster may be given; the client connects to
    /// any of them.
    pub servers: Vec<String>,
    /// If none are given, `user:password@` or `token@` before the first host that has it is used for all
    /// servers of the cluster.
    pub credentials: Credentials,
    /// Certificates of the authorities to trust, PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The scheme in which subjects are written on this server.
    pub subject_scheme: SubjectScheme,
    /// The longest time for the first connection.
    pub connect_timeout: Duration,
    /// Messages of one pattern that can wait for the reader task; `None` for the default.
    pub pattern_queue: Option<usize>,
    /// Servers of a NATS cluster that store the lease of the leader. `None`: three where the cluster has
    /// three or more, else one. The number is never reduced; replicas are added in place.
    pub lease_replicas: Option<usize>,
}

/// How this process authenticates to a NATS server.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Without credentials.
    #[default]
    None,
    /// A user and its password.
    User(String, String),
    /// A token.
    Token(String),
    /// A file with a JWT and the seed of its key.
    File(PathBuf),
}

// Both are printed without their content: URLs may hold passwords.
impl fmt::Debug for NatsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSettings").finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}
