//! Access rules: tokens that are missing, wrong, replaced, and that may do this and not that.

use std::path::Path;

use callsign_core::{ErrorKind, Finding, Freshness, Registry, Snapshot, Status};
use callsign_testkit::consul::{Api, Consul};
use callsign_testkit::record::Recorder;
use callsign_testkit::server::Server;
use callsign_testkit::wait::{until, until_status};
use serde_json::json;

use crate::{book, fresh, instance, measured, open_at, secs};

/// What a program needs that registers `book` and finds it: nothing else is to be granted.
const WRITER: &str = r#"service "book" { policy = "write" } service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
const READER: &str = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
const TOKEN: &str = "00000000-0000-4000-8000-000000000001";

async fn start(rules: &str) -> (Server<Consul>, Api) {
    let mut consul = Consul::with_rules().unwrap();
    consul.start().await.unwrap();
    let raw = Consul::raw(&consul);
    raw.put("acl/policy", &json!({ "Name": "some", "Rules": rules })).await.unwrap();
    allow(&raw, TOKEN).await;
    (consul, raw)
}

async fn allow(raw: &Api, token: &str) {
    let accessor = token.replace("-8000-", "-9000-");
    let body = json!({ "AccessorID": accessor, "SecretID": token, "Policies": [{ "Name": "some" }] });
    raw.put("acl/token", &body).await.unwrap();
}

fn with_file(consul: &Server<Consul>, file: &Path) -> Registry {
    open_at(consul.addr(), &format!("/?verify=2s&ttl=5s&token_file={}", file.display()))
}

fn pending_by(kind: ErrorKind) -> impl Fn(&Snapshot) -> bool {
    move |s| matches!(s.freshness(), Freshness::Pending { error: Some(error) } if error.kind() == kind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn least_privilege_suffices() {
    let (consul, _raw) = start(WRITER).await;
    let registry = open_at(consul.addr(), &format!("/?token_file={}", token_file(TOKEN).path().display()));
    drop(registry);
    let file = token_file(TOKEN);
    let registry = with_file(&consul, file.path());
    let registration = registry.register(instance(1)).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "one", fresh(1)).await;
    registration.deregister().await.unwrap();
    until(&mut watch, secs(5), "none", fresh(0)).await;
    let other = callsign_core::Instance::new("other", "127.0.0.1:1").unwrap();
    let error = registry.register(other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
}

fn token_file(token: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), token).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_is_told_what_is_refused() {
    let (consul, raw) = start(READER).await;
    raw.register("book", "i", "10.0.0.1", 1).await.unwrap();
    let file = token_file(TOKEN);
    let registry = with_file(&consul, file.path());
    until(&mut registry.watch(&book()), secs(5), "one", fresh(1)).await;
    let report = registry.check().await;
    assert!(!report.reach.is_refused() && !report.read.is_refused(), "{report}");
    assert!(
        matches!(&report.write, Finding::Refused(e) if e.kind() == ErrorKind::PermissionDenied),
        "{report}"
    );
    let error = registry.register(instance(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
}

/// No token and a wrong one are named states and no empty list; a right one in the file mends both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_wrong_shows_and_is_mended_without_a_restart() {
    let (consul, raw) = start(WRITER).await;
    raw.register("book", "i", "10.0.0.1", 1).await.unwrap();
    let nobody = open_at(consul.addr(), "");
    until(&mut nobody.watch(&book()), secs(5), "refused", pending_by(ErrorKind::PermissionDenied)).await;
    assert!(nobody.check().await.read.is_refused());

    let file = token_file("00000000-0000-4000-8000-0000000bad00");
    let registry = with_file(&consul, file.path());
    let mut watch = registry.watch(&book());
    let mut registration = registry.keep_registered(instance(1));
    let shown = until(&mut watch, secs(5), "refused", pending_by(ErrorKind::Unauthenticated)).await;
    assert!(!format!("{shown:?}").contains("bad00"), "{shown:?}");
    let refused = |s: &Status| s.error().is_some_and(|e| e.kind() == ErrorKind::Unauthenticated);
    until_status(&mut registration, secs(5), "refused", refused).await;
    std::fs::write(file.path(), TOKEN).unwrap();
    until_status(&mut registration, secs(10), "registered", Status::is_registered).await;
    until(&mut watch, secs(10), "both", fresh(2)).await;
}

/// Rights that are taken away: stale with the reason, never empty, and back by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_taken_away_show_and_come_back() {
    let (consul, raw) = start(WRITER).await;
    let file = token_file(TOKEN);
    let registry = with_file(&consul, file.path());
    let mut registration = registry.register(instance(1)).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "one", fresh(1)).await;
    let recorder = Recorder::start(watch.clone());
    let accessor = TOKEN.replace("-8000-", "-9000-");
    let begun = tokio::time::Instant::now();
    let body = json!({ "AccessorID": accessor, "SecretID": TOKEN, "Policies": [] });
    raw.put(&format!("acl/token/{accessor}"), &body).await.unwrap();
    until(&mut watch, secs(35), "refused", |s| s.freshness().is_stale()).await;
    measured("rights that were taken away show", begun.elapsed());
    assert_eq!(watch.snapshot().freshness().error().unwrap().kind(), ErrorKind::PermissionDenied);
    until_status(&mut registration, secs(35), "refused", |s| s.error().is_some()).await;
    let begun = tokio::time::Instant::now();
    let body = json!({ "AccessorID": accessor, "SecretID": TOKEN, "Policies": [{ "Name": "some" }] });
    raw.put(&format!("acl/token/{accessor}"), &body).await.unwrap();
    until(&mut watch, secs(60), "fresh again", fresh(1)).await;
    until_status(&mut registration, secs(60), "registered again", Status::is_registered).await;
    measured("rights that came back are used", begun.elapsed());
    recorder.check_never_empty();
}
