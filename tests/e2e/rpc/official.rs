//! Runs the official TypeScript client, if Node.js and its packages are available.

use std::{
    fs,
    io::Result,
    path::Path,
    process::{Command, Output, Stdio},
};

use test_support::Realm;

/// Runs a command until it ends by itself.
async fn run(mut command: Command, folder: &Path) -> Result<Output> {
    command.current_dir(folder).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn official_client_calls_every_procedure() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/rpc-official");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rpc-official");
    fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "trial.mjs"] {
        fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]);
    install.args(["--fetch-timeout=30000", "--fetch-retries=1"]);
    match run(install, &folder).await {
        Ok(done) if done.status.success() => {}
        other => {
            println!("SKIPPED: the official client cannot be installed here: {other:?}");
            return;
        }
    }
    let realm = Realm::start(&[]);
    let mut trial = Command::new("node");
    trial.args(["trial.mjs", &realm.http]);
    let ran = run(trial, &folder).await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    println!("{stdout}");
    assert!(ran.status.success() && stdout.ends_with("all checks passed\n"), "{stdout}\n{stderr}");
}
