//! No secret reaches a log at any level, of ours or of the client library's, nor an error, nor `Debug`.
//!
//! A binary of its own, because the subscriber is that of the whole process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fmt::Write as _;
use std::time::Duration;

use callsign_core::{Instance, Pem, RegistryUrl, Tls};
use callsign_etcd::Etcd as Backend;
use callsign_testkit::etcd::{Etcd, Permission};
use callsign_testkit::log::Log;
use callsign_testkit::pki::Pki;
use callsign_testkit::wait::until;

const WRONG: &str = "c4n4ry-wr0ng";
const RIGHT: &str = "c4n4ry-r1ght";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_shown_anywhere() {
    let log = Log::of_process();
    let pki = Pki::new().unwrap();
    let client = pki.issue("client", &["client"]).unwrap();
    let key = std::fs::read_to_string(&client.key).unwrap();
    let mut etcd = Etcd::secured(&pki, &[]).unwrap();
    etcd.start().await.unwrap();
    let raw = Etcd::raw(&etcd);
    raw.add_user("book", RIGHT).await.unwrap();
    raw.add_role("role", &[("services/", Permission::ReadWrite)]).await.unwrap();
    raw.grant_role("book", "role").await.unwrap();
    raw.enable_auth("root").await.unwrap();

    let mut shown = String::new();
    for password in [WRONG, RIGHT] {
        let port = etcd.addr().port();
        let url = format!(
            "etcd+tls://book:{password}@127.0.0.1:{port}/services?ca={}&cert={}&key={}",
            pki.ca().display(),
            client.cert.display(),
            client.key.display()
        );
        let url = RegistryUrl::parse(&url).unwrap();
        let registry = callsign_etcd::open(&url).unwrap();
        write!(shown, "{url} {url:?} {registry:?} {} ", registry.check().await).unwrap();
        let instance = Instance::new("book", "127.0.0.1:1").unwrap();
        let registered = registry.register(instance).await;
        write!(shown, "{registered:?} ").unwrap();
        let mut watch = registry.watch(&"book".parse().unwrap());
        let settled =
            |s: &callsign_core::Snapshot| s.freshness().is_fresh() || s.freshness().error().is_some();
        write!(shown, "{:?} ", until(&mut watch, Duration::from_secs(5), "settled", settled).await).unwrap();
        assert_eq!(registered.is_ok(), password == RIGHT, "{registered:?}");
        if let Ok(registration) = registered {
            registration.deregister().await.unwrap();
        }
        let tls = Tls::default().identity(Pem::file(&client.cert), Pem::bytes(key.clone()));
        let builder = Backend::builder().endpoint("127.0.0.1:1").unwrap().tls(tls);
        write!(shown, "{builder:?} ").unwrap();
    }
    let log = log.said();
    assert!(log.contains("TRACE h2") && log.contains("asking etcd for a token"), "nothing was logged");
    let secret = key.lines().nth(1).unwrap();
    for (what, said) in [("log", &log), ("errors and Debug", &shown)] {
        for secret in [WRONG, RIGHT, "c4n4ry", secret] {
            let line = said.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "the {what} shows {secret}: {line:?}");
        }
        // And no token, which is as good as a password: etcd's have sixteen letters, a dot and a revision.
        let token = said.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').find(|word| {
            word.split_once('.').is_some_and(|(left, right)| {
                left.len() == 16
                    && left.bytes().all(|b| b.is_ascii_alphabetic())
                    && right.bytes().all(|b| b.is_ascii_digit())
                    && !right.is_empty()
            })
        });
        assert_eq!(token, None, "the {what} shows a token");
    }
}
