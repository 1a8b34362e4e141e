//! No secret reaches a log at any level, of ours or of the client library's, nor an error, nor `Debug`.
//!
//! A binary of its own, because the subscriber is that of the whole process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fmt::Write as _;
use std::time::Duration;

use callsign_core::{Credentials, Instance, RegistryUrl, Secret, Snapshot};
use callsign_testkit::log::Log;
use callsign_testkit::wait::until;
use callsign_testkit::zookeeper::ZooKeeper;

const WRONG: &str = "c4n4ry-wr0ng";
const RIGHT: &str = "c4n4ry-r1ght";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_shown_anywhere() {
    let log = Log::of_process();
    let mut zookeeper = ZooKeeper::server().unwrap();
    zookeeper.start().await.unwrap();
    let (addr, mut shown, mut held) = (zookeeper.addr(), String::new(), Vec::new());
    for password in [RIGHT, WRONG] {
        let url = format!("zk://book:{password}@{addr}/services?acl=creator&ttl=4s");
        let url = RegistryUrl::parse(&url).unwrap();
        let registry = callsign_zk::open(&url).unwrap();
        write!(shown, "{url} {url:?} {registry:?} {} ", registry.check().await).unwrap();
        let registered = registry.register(Instance::new("book", "127.0.0.1:1").unwrap()).await;
        write!(shown, "{registered:?} ").unwrap();
        let mut watch = registry.watch(&"book".parse().unwrap());
        let settled = |s: &Snapshot| s.freshness().is_fresh() || s.freshness().error().is_some();
        let snapshot = until(&mut watch, Duration::from_secs(5), "settled", settled).await;
        write!(shown, "{snapshot:?} ").unwrap();
        assert_eq!(snapshot.freshness().is_fresh(), password == RIGHT || registered.is_ok(), "{snapshot:?}");
        held.extend(registered.ok());
        let builder = callsign_zk::ZooKeeper::builder().host(addr.to_string().as_str()).unwrap();
        let builder = builder.credentials(Credentials::new("book", Secret::new(password)).unwrap());
        write!(shown, "{builder:?} ").unwrap();
    }
    let keys = over_tls(&mut shown).await;
    // Who has said it once says it again at each connection.
    zookeeper.restart().await.unwrap();
    for registration in &mut held {
        registration.registered().await.unwrap();
    }
    let log = log.said();
    assert!(log.contains("zookeeper_client") && log.contains("a session is open"), "nothing was logged");
    let bytes = |secret: &str| format!("{:?}", secret.as_bytes()).trim_matches(['[', ']']).to_owned();
    assert!(log.contains("a connection over TLS has ended") || keys.is_empty(), "the relay is silent");
    for (what, said) in [("log", &log), ("errors and Debug", &shown)] {
        for secret in [WRONG, RIGHT, "c4n4ry"].into_iter().chain(keys.iter().map(String::as_str)) {
            for secret in [secret.to_owned(), bytes(secret)] {
                let line = said.lines().find(|line| line.contains(&secret));
                assert!(line.is_none(), "the {what} shows {secret}: {line:?}");
            }
        }
    }
}

/// A password and the key of a certificate, over TLS that works and that does not. The lines of the keys.
#[cfg(feature = "tls")]
async fn over_tls(shown: &mut String) -> Vec<String> {
    let zookeeper = callsign_testkit::zookeeper::SecuredServer::start().await.unwrap();
    let stranger = zookeeper.pki.issue_expired("stranger", &["x"]).unwrap();
    let mut keys = Vec::new();
    for identity in [&zookeeper.client, &stranger] {
        let (ca, cert, key) = (zookeeper.pki.ca(), &identity.cert, &identity.key);
        let url = format!(
            "zk+tls://book:{RIGHT}@{}/services?acl=creator&ca={}&cert={}&key={}",
            zookeeper.link.addr(),
            ca.display(),
            cert.display(),
            key.display()
        );
        let url = RegistryUrl::parse(&url).unwrap();
        let registry = callsign_zk::open(&url).unwrap();
        let report = registry.check().await;
        assert_eq!(report.is_ok(), identity.key == zookeeper.client.key, "{report}");
        let registered = registry.register(Instance::new("book", "127.0.0.1:1").unwrap()).await;
        write!(shown, "{url} {url:?} {registry:?} {report} {registered:?} ").unwrap();
        let pem = std::fs::read_to_string(key).unwrap();
        keys.extend(pem.lines().filter(|line| !line.starts_with("---")).map(ToOwned::to_owned));
    }
    assert!(keys.len() >= 4, "a key has some lines");
    keys
}

#[cfg(not(feature = "tls"))]
async fn over_tls(_: &mut String) -> Vec<String> {
    Vec::new()
}
