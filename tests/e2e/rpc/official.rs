//! The official TypeScript client, where Node can run it.

use std::{
    fs,
    io::Result,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::realm_process::Realm;

/// Runs a command to its end, which it comes to by itself.
async fn run(mut command: Command, place: &Path) -> Result<Output> {
    command.current_dir(place).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn official_client_calls_every_procedure() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/rpc-official");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rpc-official");
    fs::create_dir_all(&place).unwrap();
    for file in ["package.json", "trial.mjs"] {
        fs::copy(source.join(file), place.join(file)).unwrap();
    }
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]);
    install.args(["--fetch-timeout=30000", "--fetch-retries=1"]);
    match run(install, &place).await {
        Ok(done) if done.status.success() => {}
        other => {
            println!("SKIPPED: the official client cannot be installed here: {other:?}");
            return;
        }
    }
    let realm = Realm::start(&[]);
    let mut trial = Command::new("node");
    trial.args(["trial.mjs", &realm.http]);
    let ran = run(trial, &place).await.unwrap();
    let (said, complained) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    println!("{said}");
    assert!(ran.status.success() && said.ends_with("all as it should be\n"), "{said}\n{complained}");
}
