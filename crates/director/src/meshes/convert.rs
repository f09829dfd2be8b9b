//! The messages of the bus to and from the types of the planner.

use mesh::{LinkReport, Plan, RestoredState};
use protocol::{IslandId, mesh as wire};

/// The message with a plan.
pub(super) fn encode_plan(island: &IslandId, plan: &Plan) -> wire::Plan {
    wire::Plan {
        island_id: island.to_string(),
        version: plan.version,
        alias: plan.alias,
        members: plan
            .members
            .iter()
            .map(|member| wire::Member { alias: member.alias, address: member.address.to_string() })
            .collect(),
        links: plan
            .links
            .iter()
            .map(|link| wire::Link { alias: link.alias, initiate: link.initiate })
            .collect(),
        routes: plan
            .routes
            .iter()
            .map(|route| wire::Route {
                source: route.source,
                from: route.from.unwrap_or_default(),
                to: route.to.clone(),
                fallback: route.fallback.clone(),
            })
            .collect(),
    }
}

/// The report in a message.
pub(super) fn decode_report(report: &wire::LinkReport) -> LinkReport {
    LinkReport {
        version: report.version,
        connected_to: report.connected_to.clone(),
        failed: report.failed.clone(),
        flooding: report.flooding.clone(),
        sent: report.sent,
        sent_by_fallback: report.sent_by_fallback,
    }
}

/// The state of a member under the former director, as far as its report has it.
pub(super) fn decode_state(report: &wire::LinkReport) -> Option<RestoredState> {
    let links = report.neighbours.iter();
    (report.alias > 0).then(|| RestoredState {
        alias: report.alias,
        version: report.version,
        highest_alias: report.highest_alias.max(report.alias),
        links: links.filter_map(|member| Some((member.alias, member.address.parse().ok()?))).collect(),
    })
}
