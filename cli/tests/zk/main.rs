//! The program against a real ZooKeeper of the testbed.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print figures"
)]

mod access;
#[path = "../support/crash.rs"]
mod crash;
#[path = "../support/mod.rs"]
mod support;

use callsign_testkit::server::Server;
use callsign_testkit::zookeeper::{Raw, ZooKeeper};
use crash::fresh;
use rustix::process::Signal;
use support::{Running, confirmed, run, text};

/// A ZooKeeper that runs, raw access to it, and the URL of a registry in it.
async fn start(query: &str) -> (Server<ZooKeeper>, Raw, String) {
    let mut server = ZooKeeper::server().unwrap();
    server.start().await.unwrap();
    let (raw, url) = (ZooKeeper::raw(&server), format!("zk://{}/services{query}", server.addr()));
    (server, raw, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_registers_is_seen_until_it_leaves() {
    let (_zookeeper, raw, url) = start("?drain=100ms").await;
    let check = run(&url, &["check"]).await;
    assert!(check.status.success(), "{check:?}");
    let stdout = text(&check.stdout);
    assert!(
        ["reach", "read", "write"].iter().all(|what| stdout.contains(&format!("{what:<9} ok"))),
        "{stdout}"
    );
    let mut json = Running::start(&url, &["watch", "web", "--json"]);
    json.json("the empty list", |line| fresh(line, 0)).await;

    let args = ["register", "web", "10.0.0.1:80", "--weight", "3", "--zone", "eu-1", "--meta", "team=a=b"];
    let mut web = Running::start(&url, &args);
    web.noted("registered web/10.0.0.1:80 in zk://").await;
    let line = json.json("it is there", |line| confirmed(line) == ["10.0.0.1:80"]).await;
    let one = &line["instances"][0];
    assert_eq!(
        (&one["weight"], &one["zone"], &one["metadata"]["team"]),
        (&3.into(), &"eu-1".into(), &"a=b".into())
    );
    raw.put("/services/web/theirs", b"10.0.0.2:80").await.unwrap();
    json.json("somebody else's is there", |line| fresh(line, 2)).await;
    let list = run(&url, &["list", "web"]).await;
    assert_eq!(
        text(&list.stdout),
        "ADDRESS      ID      STATE  WEIGHT  ZONE  METADATA\n\
         10.0.0.1:80          up     3       eu-1  team=a=b\n\
         10.0.0.2:80  theirs  up     1\n"
    );
    let removed = run(&url, &["deregister", "web", "theirs"]).await;
    assert!(removed.status.success(), "{removed:?}");
    json.json("that is gone", |line| confirmed(line) == ["10.0.0.1:80"]).await;

    web.signal(Signal::TERM);
    json.json("it has left", |line| fresh(line, 0)).await;
    assert_eq!(web.code().await, 0);
    assert!(raw.children("/services/web").await.unwrap().is_empty());
    let elsewhere = run("zk://127.0.0.1:1", &["check"]).await;
    assert!(!elsewhere.status.success() && text(&elsewhere.stdout).contains("127.0.0.1:1"), "{elsewhere:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_9_of_the_command_or_of_us_takes_it_away() {
    let (_zookeeper, raw, url) = start("").await;
    let line = crash::a_kill_9_of_the_command_or_of_us_takes_it_away(&url).await;
    // ZooKeeper does not say who took a node away, so the last of a service is held for a while.
    assert!(line["instances"].as_array().unwrap().iter().all(|one| one["held"] == true), "{line}");
    assert!(raw.children("/services/web").await.unwrap().is_empty());
}
