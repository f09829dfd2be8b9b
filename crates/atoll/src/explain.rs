//! `atoll explain` and `atoll rules diff`: query the admin endpoints of a realm on this machine.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use reqwest::RequestBuilder;

use crate::admin::{DiffQuery, ExplainQuery};

/// The realm to query.
#[derive(clap::Args)]
pub(crate) struct AdminTarget {
    /// The URL of the realm's admin endpoints.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5001")]
    admin: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The subject of the explanation.
#[derive(clap::Args)]
#[group(id = "asked", required = true, multiple = false)]
struct ExplainTarget {
    /// Explain the rules for a peer at this position, in metres: x,z.
    #[arg(long, value_name = "X,Z", allow_hyphen_values = true)]
    at: Option<String>,
    /// Explain this island.
    #[arg(long, value_name = "ID")]
    island: Option<String>,
    /// Explain the assignment of this peer.
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<String>,
    /// Explain why these two peers are not in one island.
    #[arg(long, num_args = 2, value_names = ["ADDRESS", "ADDRESS"])]
    why: Option<Vec<String>>,
}

/// The flags of `atoll explain`.
#[derive(clap::Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    what: ExplainTarget,
    #[command(flatten)]
    at: AdminTarget,
}

/// How long a realm may take to respond; a diff copies the engine's whole state.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests an explanation and prints it.
pub(crate) async fn explain(flags: Flags) -> Result<ExitCode> {
    let Flags { what: ExplainTarget { at, island, peer, why }, at: AdminTarget { admin, json } } = flags;
    let query = ExplainQuery { at, island, peer, why: why.map(|pair| pair.join(",")), json };
    let url = format!("{}/explain", admin.trim_end_matches('/'));
    send_and_print(client::http_client(&url)?.get(url).query(&query), &admin).await
}

/// Requests the changes that other rules would cause, and prints them.
pub(crate) async fn diff(text: String, at: AdminTarget) -> Result<ExitCode> {
    let url = format!("{}/rules/diff", at.admin.trim_end_matches('/'));
    send_and_print(
        client::http_client(&url)?.post(url).query(&DiffQuery { json: at.json }).body(text),
        &at.admin,
    )
    .await
}

async fn send_and_print(request: RequestBuilder, admin: &str) -> Result<ExitCode> {
    let unreachable = || format!("no realm responds at {admin} (its server.admin, or --admin here)");
    let response = request.timeout(REQUEST_TIMEOUT).send().await.with_context(unreachable)?;
    let status = response.status();
    let text = response.text().await.with_context(unreachable)?;
    if !status.is_success() {
        bail!("{text}");
    }
    println!("{}", text.trim_end());
    Ok(ExitCode::SUCCESS)
}
