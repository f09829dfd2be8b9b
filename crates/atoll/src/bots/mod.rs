//! bots
#[derive(clap::Args)]
pub(crate) struct Flags {}
pub(crate) async fn run(_: Flags) -> anyhow::Result<std::process::ExitCode> {
    Ok(std::process::ExitCode::SUCCESS)
}
