//! `atoll explain` and `atoll rules diff`: asks a realm on this machine.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use reqwest::RequestBuilder;

use crate::admin::{DiffQuery, ExplainQuery};

/// Where a realm answers its operator.
#[derive(clap::Args)]
pub(crate) struct AdminTarget {
    /// The admin socket of the realm.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5001")]
    admin: String,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// What to explain.
#[derive(clap::Args)]
#[group(id = "asked", required = true, multiple = false)]
struct ExplainTarget {
    /// What holds for somebody who stands here, in metres: x,z.
    #[arg(long, value_name = "X,Z", allow_hyphen_values = true)]
    at: Option<String>,
    /// Why this island is as it is.
    #[arg(long, value_name = "ID")]
    island: Option<String>,
    /// Where this peer is, and why.
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<String>,
    /// Why these two do not hear each other.
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

/// How long a realm may take to answer; a diff copies all that it knows.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks why, and prints the answer.
pub(crate) async fn explain(flags: Flags) -> Result<ExitCode> {
    let Flags { what: ExplainTarget { at, island, peer, why }, at: AdminTarget { admin, json } } = flags;
    let asked = ExplainQuery { at, island, peer, why: why.map(|pair| pair.join(",")), json };
    let url = format!("{}/explain", admin.trim_end_matches('/'));
    send_and_print(client::http_client(&url)?.get(url).query(&asked), &admin).await
}

/// Asks what other rules would change, and prints the answer.
pub(crate) async fn diff(text: String, at: AdminTarget) -> Result<ExitCode> {
    let url = format!("{}/rules/diff", at.admin.trim_end_matches('/'));
    send_and_print(
        client::http_client(&url)?.post(url).query(&DiffQuery { json: at.json }).body(text),
        &at.admin,
    )
    .await
}

async fn send_and_print(request: RequestBuilder, admin: &str) -> Result<ExitCode> {
    let unreachable = || format!("no realm answers at {admin} (its server.admin, or --admin here)");
    let response = request.timeout(REQUEST_TIMEOUT).send().await.with_context(unreachable)?;
    let status = response.status();
    let text = response.text().await.with_context(unreachable)?;
    if !status.is_success() {
        bail!("{text}");
    }
    println!("{}", text.trim_end());
    Ok(ExitCode::SUCCESS)
}
