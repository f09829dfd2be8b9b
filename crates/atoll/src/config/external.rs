//! `[external.<node>]`: transports that Atoll only hands out connection strings for.

use director::{ConfiguredNode, TransportOffer};
use protocol::NodeName;
use transports::external::Template;

use super::{
    problems::{Problems, quoted},
    section::section,
    values::limit,
};

section! {
    /// `[external.<node>]`: transports that Atoll does not implement
    pub(crate) struct External {
        /// Connection string that clients are sent, such as `pulse:wss://host/{island}?as={address}`, with
        /// the placeholders `{island}` and `{address}`. Required. All external nodes together may have at
        /// most 5 protocols.
        template: String = String::new(),
        /// Maximum number of members of an island that is assigned to this node.
        #[at_least(1)]
        max_island_size: u32 = 100,
        /// Maximum number of peers on the node. 0: no limit.
        max_users: u32 = 0,
        /// Whether the node drains: it accepts no new members, and its islands move to other nodes.
        draining: bool = false,
    }
}

impl External {
    /// `table` is the name of the node's table.
    pub(super) fn validate(&self, table: &str, problems: &mut Problems) {
        if let Err(rule) = self.template.parse::<Template>() {
            problems.check(false, format_args!("{table}.template"), quoted(&self.template), rule);
        }
    }

    /// The protocol of the connection string, if it is valid.
    pub(super) fn protocol(&self) -> Option<String> {
        Some(self.template.parse::<Template>().ok()?.protocol().to_owned())
    }

    /// The node of this name, if its template is valid.
    pub(super) fn settings(&self, node: NodeName) -> Option<ConfiguredNode> {
        Some(ConfiguredNode {
            node,
            offer: TransportOffer::External(self.template.parse().ok()?),
            max_island_size: self.max_island_size,
            max_users: limit(self.max_users),
            draining: self.draining,
        })
    }
}
