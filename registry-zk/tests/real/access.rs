//! Users, passwords and the rights to nodes.

use std::time::Duration;

use callsign_core::{ErrorKind, Instance, InstanceId, ServiceName, Snapshot};
use callsign_testkit::fixture::{Fixture, Served, Tuning};
use callsign_testkit::wait::{eventually, ok, until};
use callsign_testkit::zookeeper::ZooKeeper;

use crate::{SOON, fixture, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_its_user_may_touch_a_node() {
    let fixture = fixture().await;
    let service: ServiceName = "book".parse().unwrap();
    let url = fixture.url_via(fixture.link().unwrap().addr());
    let of = |user: &str| {
        open(&format!("{}&acl=creator", url.replace("zk://", &format!("zk://{user}@")))).unwrap()
    };
    let (al, same) = (of("al:canary"), of("al:canary"));
    let (wrong, anybody) = (of("al:canary2"), open(&url).unwrap());
    let registration = ok(al.register(Instance::new(&service, "10.0.0.1:80").unwrap()).await, "register");
    assert_eq!(ok(same.watch(&service).ready().await, "ready").len(), 1);
    assert!(same.check().await.is_ok());

    let id: InstanceId = registration.id();
    for other in [&wrong, &anybody] {
        let mut watch = other.watch(&service);
        let freshness = loop {
            let snapshot = watch.snapshot();
            match snapshot.freshness().error() {
                Some(error) => break error.clone(),
                None => assert!(watch.changed().await.unwrap().is_empty()),
            }
        };
        assert_eq!(freshness.kind(), ErrorKind::PermissionDenied, "{freshness}");
        assert!(
            freshness.to_string().contains("ACL") && freshness.to_string().contains(id.as_str()),
            "{freshness}"
        );
        // Whoever may not touch it may not take its id over either.
        let taken = other.register(Instance::new(&service, "10.0.0.1:80").unwrap()).await;
        if let Err(error) = &taken {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
    assert_eq!(fixture.count(&service).await.unwrap(), 1);
    ok(same.remove(&service, &id).await, "remove");
}

/// Who may not make the node of a service is told so at once, by the name of what may not be made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_make_a_parent_is_told_so() {
    let fixture = fixture().await;
    let service: ServiceName = "book".parse().unwrap();
    let path = fixture.path(&service);
    let (above, _) = path.rsplit_once('/').unwrap();
    fixture.raw().put(&format!("{above}/other"), b"").await.unwrap();
    // All but the creation of what is below.
    fixture.raw().permit(above, 31 - 4).await.unwrap();
    let registry = open(&fixture.url_via(fixture.link().unwrap().addr())).unwrap();
    let begun = std::time::Instant::now();
    let refused = registry.register(Instance::new(&service, "10.0.0.1:80").unwrap()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{}", refused.chain());
    assert!(refused.chain().contains(&format!("creation of {path}")), "{}", refused.chain());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    fixture.raw().permit(above, 31).await.unwrap();
    drop(ok(registry.register(Instance::new(&service, "10.0.0.1:80").unwrap()).await, "register"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_away_empties_nothing() {
    let fixture = fixture().await;
    let service: ServiceName = "book".parse().unwrap();
    let tuning = Tuning { verify: Some(Duration::from_millis(500)), ..Tuning::default() };
    let registry = ok(fixture.open(&tuning), "open");
    let held = ok(registry.register(Instance::new(&service, "10.0.0.1:80").unwrap()).await, "register");
    let mut watch = registry.watch(&service);
    until(&mut watch, SOON, "seen", |s| s.len() == 1).await;
    fixture.raw().permit(&fixture.path(&service), 2 + 4 + 8).await.unwrap();
    let refused = |s: &Snapshot| {
        s.len() == 1 && s.freshness().error().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    until(&mut watch, SOON, "stale, and not empty", refused).await;
    fixture.raw().permit(&fixture.path(&service), 31).await.unwrap();
    until(&mut watch, SOON * 2, "fresh again", |s| s.len() == 1 && s.freshness().is_fresh()).await;
    assert!(held.status().is_registered());
}

/// Servers that want to be told who we are, by a scheme that is spoken here and by one that is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_demand_another_scheme_say_so() {
    let demands = ["enforce.auth.enabled=true", "enforce.auth.schemes=digest"];
    let mut server = ZooKeeper::server_with(&demands).unwrap();
    // Nor does it answer whoever only wants to know whether it does.
    server.launch().unwrap();
    let book: ServiceName = "book".parse().unwrap();
    let known = open(&format!("zk://al:canary@{}/services", server.addr())).unwrap();
    until(&mut known.watch(&book), SOON * 5, "it is listed", |s| s.freshness().is_fresh()).await;
    let unknown = open(&format!("zk://{}/services", server.addr())).unwrap();
    let refused =
        |s: &Snapshot| s.freshness().error().is_some_and(|error| error.kind() == ErrorKind::Unauthenticated);
    let snapshot = until(&mut unknown.watch(&book), SOON, "it is refused", refused).await;
    let said = snapshot.freshness().error().unwrap().chain();
    println!("{said}");
    assert!(said.contains("SASL") && snapshot.freshness().is_pending(), "{said}");
}

/// What one who writes there does not show us hides none of the others, and what we knew of it counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_may_not_be_read_hide_no_others() {
    const ALL: i32 = 31;
    const ALL_BUT_READ: i32 = 30;
    let fixture = fixture().await;
    let service: ServiceName = "book".parse().unwrap();
    let (raw, dir) = (fixture.raw(), fixture.path(&service));
    let path = |name: &str| format!("{dir}/{name}");
    for name in ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"] {
        raw.put(&path(name), name.as_bytes()).await.unwrap();
    }
    let close = async |name: &str, perms: i32| raw.permit(&path(name), perms).await.unwrap();
    close("10.0.0.1:3", ALL_BUT_READ).await;
    let (above, _) = dir.rsplit_once('/').unwrap();
    raw.put(&format!("{above}/closed"), b"").await.unwrap();
    raw.permit(&format!("{above}/closed"), ALL_BUT_READ).await.unwrap();

    let registry = ok(fixture.open(&Tuning::default()), "open");
    let fresh = |count: usize, skipped: usize| {
        move |s: &Snapshot| s.freshness().is_fresh() && (s.len(), s.skipped()) == (count, skipped)
    };
    let mut watch = registry.watch(&service);
    until(&mut watch, SOON, "those that may be read", fresh(2, 1)).await;
    let services = ok(registry.services().await, "services");
    assert!(services.contains(&service), "{services:?}");

    // What closes while it is followed, and is listed anew, counts as it was.
    close("10.0.0.1:2", ALL_BUT_READ).await;
    raw.put(&path("10.0.0.1:2"), b"10.0.0.1:22").await.unwrap();
    raw.put(&path("10.0.0.1:4"), b"10.0.0.1:4").await.unwrap();
    until(&mut watch, SOON, "one more", fresh(3, 1)).await;
    let reset = async || {
        let before = fixture.link().unwrap().accepted();
        fixture.link().unwrap().reset();
        eventually(SOON, "it reconnects", async || fixture.link().unwrap().accepted() > before).await;
        raw.put(&path("10.0.0.1:5"), b"10.0.0.1:5").await.unwrap();
    };
    reset().await;
    let seen = until(&mut watch, SOON, "listed anew", fresh(4, 1)).await;
    assert_eq!(seen.get(&"10.0.0.1:2".parse().unwrap()).unwrap().address().port(), 2);

    // Whoever may read none has no rights, or the wrong password.
    for name in ["10.0.0.1:1", "10.0.0.1:4", "10.0.0.1:5"] {
        close(name, ALL_BUT_READ).await;
    }
    fixture.link().unwrap().reset();
    let refused =
        |s: &Snapshot| s.freshness().error().is_some_and(|e| e.kind() == ErrorKind::PermissionDenied);
    let stale = until(&mut watch, SOON, "none may be read", refused).await;
    assert_eq!(stale.len(), 4);
    let error = registry.remove(&service, &"10.0.0.1:9".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "it may be any of them: {}", error.chain());
    ok(registry.remove(&service, &"10.0.0.1:3".parse().unwrap()).await, "remove by name");
    for name in ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:4", "10.0.0.1:5"] {
        close(name, ALL).await;
    }
    until(&mut watch, SOON * 3, "all may be read", fresh(4, 0)).await;
}
