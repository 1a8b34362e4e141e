//! That containers end with the tests that started them. Runs by name only, as it needs an engine:
//! `CALLSIGN_CONTAINERS=docker cargo test --package callsign-testkit --test containers`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use callsign_testkit::container::{Container, Engine, Image};
use callsign_testkit::etcd::Etcd;
use callsign_testkit::provider::Provider;
use callsign_testkit::wait::eventually;
use tokio::time::sleep;

const END: &str = "CALLSIGN_TESTKIT_END";
const SOON: Duration = Duration::from_secs(20);

fn engine() -> Engine {
    match Provider::chosen().unwrap() {
        Provider::Containers(engine) => engine,
        Provider::Native => panic!("this needs CALLSIGN_CONTAINERS=docker or podman"),
    }
}

/// The containers of an owner, in whatever state.
fn containers(owner: &Child) -> usize {
    let filter = format!("name=callsign-test-{}-", owner.id());
    engine().run(["ps", "--all", "--quiet", "--filter", &filter]).unwrap().lines().count()
}

fn start(end: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner", "--nocapture"])
        .env(END, end)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test by itself: what the others start again to see it end.
#[tokio::test]
async fn owner() {
    let Ok(end) = std::env::var(END) else { return };
    let mut server = Etcd::server().unwrap();
    server.launch().unwrap();
    if end == "paused" {
        server.ready().await.unwrap();
        server.pause().unwrap();
    }
    println!("\nstarted");
    assert_ne!(end, "panic", "as told");
    sleep(Duration::from_secs(600)).await;
}

/// Starts an owner that ends in some way, and sees its container go.
async fn ends(end: &str, signal: Option<&str>) {
    let mut owner = start(end);
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "started"));
    if let Some(signal) = signal {
        assert_eq!(containers(&owner), 1);
        let id = owner.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }
    let status = owner.wait().unwrap();
    assert_eq!(status.signal().is_some(), signal.is_some(), "{status}");
    eventually(SOON, "the container is gone", async || containers(&owner) == 0).await;
}

#[tokio::test]
async fn gone_after_kill() {
    ends("kill", Some("KILL")).await;
}

#[tokio::test]
async fn gone_after_ctrl_c() {
    ends("interrupt", Some("INT")).await;
}

#[tokio::test]
async fn gone_after_a_panic() {
    ends("panic", None).await;
}

#[tokio::test]
async fn gone_after_kill_when_paused() {
    ends("paused", Some("KILL")).await;
}

#[tokio::test]
async fn what_was_being_made_at_a_kill_is_gone() {
    let mut owners = Vec::new();
    for after in [5, 20, 40, 60, 80, 120, 250, 400] {
        let mut owner = start("kill");
        sleep(Duration::from_millis(after)).await;
        owner.kill().unwrap();
        owner.wait().unwrap();
        owners.push(owner);
    }
    // Long enough for whatever had been asked of the engine by then.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(owners.iter().map(containers).sum::<usize>(), 0);
}

#[tokio::test]
async fn the_port_is_free_again_at_once() {
    let mut server = Etcd::server().unwrap();
    for _ in 0..3 {
        server.launch().unwrap();
        server.kill();
        assert!(TcpListener::bind(server.addr()).is_ok());
    }
    // An etcd that was killed between the making of its log and the first entry in it never finds a leader again.
    server.wipe();
    server.start().await.unwrap();
    Etcd::raw(&server).put("key", b"kept", 0).await.unwrap();
    server.pause().unwrap();
    server.restart().await.unwrap();
    assert_eq!(Etcd::raw(&server).count("key").await.unwrap(), 1);
    server.stop().await.unwrap();
    assert!(TcpListener::bind(server.addr()).is_ok());
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let image = Image::new("callsign.invalid/none:1");
    let folder = tempfile::tempdir().unwrap();
    let log = tempfile::tempfile().unwrap();
    let failed = Container::start(engine(), &image, (Path::new("none"), &[]), folder.path(), log);
    let failed = failed.unwrap_err().to_string();
    assert!(failed.contains("callsign.invalid/none:1"), "{failed}");
}
