//! Crashes, and a registry that is down.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::crash::{self, fresh};
use crate::start;
use crate::support::{Running, confirmed, free, run, server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_9_of_the_command_or_of_us_takes_it_away() {
    let (_etcd, raw, url) = start("").await;
    let line = crash::a_kill_9_of_the_command_or_of_us_takes_it_away(&url).await;
    assert_eq!(line["instances"], Value::Array(Vec::new()), "it was announced, so nobody holds on to it");
    assert_eq!(raw.count("services/web/").await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_a_state_and_passes() {
    let (mut etcd, _raw, url) = start("").await;
    let (_port, port) = free();
    let address = format!("127.0.0.1:{port}");
    let mut web = Running::start(&url, &[&["register", "web", &address][..], &server(&port)].concat());
    web.noted("registered ").await;
    let mut json = Running::start(&url, &["watch", "web", "--json"]);
    let mut lines = Running::start(&url, &["watch", "web"]);
    json.json("it is there", |line| fresh(line, 1)).await;
    lines.said(&format!("+ {address} {address}")).await;
    etcd.kill();
    let stale = json.json("it is stale", |line| line["freshness"]["state"] == "stale").await;
    assert_eq!(confirmed(&stale), [&*address], "an outage removes nothing");
    let since = stale["freshness"]["since"].as_str().unwrap();
    humantime::parse_rfc3339(since).unwrap();
    let error = stale["freshness"]["error"].as_str().unwrap();
    assert!(error.contains("etcd"), "{error}");
    assert!(lines.said("! stale since ").await.contains("etcd"));
    web.noted(&format!("{address} keeps trying to stay registered")).await;
    // A list that cannot be had is given up; `check` says what is wrong.
    let begun = Instant::now();
    let list = run(&url, &["list", "web"]).await;
    assert_eq!(list.status.code(), Some(1), "{list:?}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let stderr = String::from_utf8(list.stderr).unwrap();
    assert!(
        stderr.contains("no list of web") && stderr.contains("within 5s") && stderr.contains("refused"),
        "{stderr}"
    );
    assert_eq!(run(&url, &["list"]).await.status.code(), Some(1));
    let check = run(&url, &["check"]).await;
    assert_eq!(check.status.code(), Some(1));
    let stdout = String::from_utf8(check.stdout).unwrap();
    assert!(stdout.contains("reach     refused: ") && stdout.contains("read      not tried"), "{stdout}");

    etcd.start().await.unwrap();
    json.json("it is fresh", |line| fresh(line, 1)).await;
    lines.said("! fresh").await;
    web.signal(Signal::TERM);
    json.json("it has left", |line| fresh(line, 0)).await;
    assert_eq!(web.code().await, 7);
}

/// The newest claim wins; who serves goes on serving, and takes nothing of the newcomer's along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_outlives_its_registration() {
    let (_etcd, raw, url) = start("?drain=0s").await;
    let (_port, port) = free();
    let address = format!("127.0.0.1:{port}");
    let mut old = Running::start(&url, &[&["register", "web", &address][..], &server(&port)].concat());
    old.noted("registered ").await;
    let mut new = Running::start(&url, &["register", "web", &address, "--version", "2"]);
    new.noted("registered ").await;
    let taken = old.noted(&format!("web/{address} was registered by somebody else")).await;
    assert!(taken.contains("serves on"), "{taken}");
    assert!(tokio::net::TcpStream::connect(&address).await.is_ok());
    old.signal(Signal::TERM);
    assert_eq!(old.code().await, 7);
    assert_eq!(raw.count("services/web/").await.unwrap(), 1);
    // Without a command nothing is left to do.
    let mut newest = Running::start(&url, &["register", "web", &address, "--version", "3"]);
    newest.noted("registered ").await;
    assert!(new.failed().await.contains("somebody else"));
    assert_eq!(new.code().await, 1);
}

/// The command starts all the same, and is registered as soon as there is a registry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_down_at_first_is_waited_for() {
    let (mut etcd, _raw, url) = start("").await;
    etcd.kill();
    let (_port, port) = free();
    let address = format!("127.0.0.1:{port}");
    let mut web = Running::start(&url, &[&["register", "web", &address][..], &server(&port)].concat());
    web.noted(&format!("{address} waits to be registered in etcd://")).await;
    let mut watch = Running::start(&url, &["watch", "web", "--json"]);
    let pending = watch.json("it is pending", |line| line["freshness"]["state"] == "pending").await;
    assert!(pending["freshness"]["error"].as_str().unwrap().contains("etcd"), "{pending}");
    etcd.start().await.unwrap();
    web.noted("registered ").await;
    watch.json("it is there", |line| fresh(line, 1)).await;
}
