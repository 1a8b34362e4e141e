//! Publishing: seen, changed in place, claimed twice, removed by hand, broken off.

use std::time::Duration;

use callsign_core::{ErrorKind, InstanceId, Snapshot, Status};
use tokio::time::{Instant, timeout};

use super::watch::SOON;
use super::{instance, open, service};
use crate::fixture::{Fixture, SecondClaim};
use crate::record::Recorder;
use crate::wait::{eventually, ok, until, until_status};

fn has_weight(id: &InstanceId, weight: u32) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| snapshot.get(id).is_some_and(|listed| listed.weight() == weight)
}

/// `register` returns once the entry is published: whoever looks then finds it. And `deregister` once it is gone.
pub async fn seen_with_its_content_then_gone(fixture: &impl Fixture) {
    let (servers, clients, service) = (open(fixture), open(fixture), service());
    let mut watch = clients.watch(&service);
    ok(timeout(SOON, watch.ready()).await.expect("no first list"), "ready");
    let wanted = instance(&service, 1);
    let registration = ok(servers.register(wanted.clone()).await, "register");
    assert!(registration.status().is_registered());
    assert_eq!(fixture.count(&service).await.unwrap(), 1);
    let snapshot = until(&mut watch, fixture.caps().visible, "seen", |s| s.len() == 1).await;
    let listed = snapshot.get(wanted.id()).unwrap();
    assert_eq!((&**listed, listed.is_held(), snapshot.skipped()), (&wanted, false, 0));
    ok(registration.deregister().await, "deregister");
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
    until(&mut watch, fixture.caps().visible, "gone", |s| s.is_empty() && s.freshness().is_fresh()).await;
}

/// Publishing what is published already is nothing to tell anybody.
pub async fn equal_content_is_no_change(fixture: &impl Fixture) {
    let (servers, clients, service) = (open(fixture), open(fixture), service());
    let one = ok(servers.register(instance(&service, 1)).await, "register");
    let mut watch = clients.watch(&service);
    let before = until(&mut watch, fixture.caps().visible, "seen", |s| s.len() == 1).await;
    for _ in 0..5 {
        ok(one.update(instance(&service, 1)).await, "update");
    }
    // The next change shows that nothing came before it.
    ok(one.update(instance(&service, 1).with_weight(7)).await, "update");
    let after = until(&mut watch, fixture.caps().visible, "seen", has_weight(&one.id(), 7)).await;
    assert_eq!(after.revision(), before.revision() + 1);
}

/// An update replaces the content, and the instance is never absent between.
pub async fn updated_in_place(fixture: &impl Fixture) {
    let (servers, clients, service) = (open(fixture), open(fixture), service());
    let registration = ok(servers.register(instance(&service, 1)).await, "register");
    let id = registration.id();
    let mut watch = clients.watch(&service);
    until(&mut watch, fixture.caps().visible, "seen", |s| s.len() == 1).await;
    let recorder = Recorder::start(watch.clone());
    for weight in 2..8 {
        let content =
            instance(&service, 1).with_weight(weight).with_metadata("round", weight.to_string()).unwrap();
        ok(registration.update(content.clone()).await, "update");
        assert_eq!(*registration.instance(), content);
        let is_it = |s: &Snapshot| s.get(&id).is_some_and(|listed| **listed == content);
        until(&mut watch, fixture.caps().visible, "the update is seen", is_it).await;
    }
    assert_eq!(fixture.count(&service).await.unwrap(), 1);
    recorder.check_never_missing(&[id]);
    recorder.check_safety();
}

/// Service, id and address stay.
pub async fn another_identity_is_no_update(fixture: &impl Fixture) {
    let (servers, service) = (open(fixture), service());
    let registration = ok(servers.register(instance(&service, 1)).await, "register");
    let others = [
        instance(&super::service(), 1),
        instance(&service, 2),
        instance(&service, 1).with_id("another").unwrap(),
        instance(&service, 2).with_id(registration.id().as_str()).unwrap(),
    ];
    for other in others {
        assert_eq!(registration.update(other).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(registration.status().is_registered());
}

/// Two owners of one id, in two processes.
pub async fn second_claim(fixture: &impl Fixture) {
    let (ours, theirs, clients, service) = (open(fixture), open(fixture), open(fixture), service());
    let mut first = ok(ours.register(instance(&service, 1)).await, "register");
    let (id, visible) = (first.id(), fixture.caps().visible);
    let mut watch = clients.watch(&service);
    until(&mut watch, visible, "seen", |s| s.len() == 1).await;
    let recorder = Recorder::start(watch.clone());
    let second = theirs.register(instance(&service, 1).with_weight(2)).await;
    match fixture.caps().second_claim {
        SecondClaim::TakesOver(within) => {
            let second = ok(second, "the newest wins");
            until(&mut watch, visible, "the second is seen", has_weight(&id, 2)).await;
            until_status(&mut first, within, "superseded", |s| matches!(s, Status::Superseded)).await;
            let refused = first.update(instance(&service, 1).with_weight(3)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Superseded);
            ok(first.deregister().await, "the end of a superseded registration");
            assert!(second.status().is_registered());
        }
        SecondClaim::Conflict => {
            let error = second.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
            assert!(first.status().is_registered());
            ok(first.update(instance(&service, 1).with_weight(2)).await, "the first goes on");
            until(&mut watch, visible, "the first goes on", has_weight(&id, 2)).await;
        }
    }
    recorder.check_never_missing(&[id]);
}

/// Names that begin alike are different services; all of them are listed, and those without instances are not.
pub async fn services_are_apart(fixture: &impl Fixture) {
    let (servers, clients) = (open(fixture), open(fixture));
    let stem = service();
    let names = ["", "2", ".a", "-", "_"].map(|end| format!("{stem}{end}").parse().unwrap());
    let mut held = Vec::new();
    for (n, name) in names.iter().enumerate() {
        held.push(ok(servers.register(instance(name, n as u16)).await, name));
    }
    for (n, name) in names.iter().enumerate() {
        let mut watch = clients.watch(name);
        let snapshot = until(&mut watch, fixture.caps().visible, "seen", |s| !s.is_empty()).await;
        assert_eq!(crate::record::ids(&snapshot), [instance(name, n as u16).id().clone()].into());
        assert_eq!(fixture.count(name).await.unwrap(), 1);
    }
    let mut sorted = names.to_vec();
    sorted.sort();
    let listed = ok(clients.services().await, "services");
    let ours: Vec<_> = listed.into_iter().filter(|name| name.as_str().starts_with(stem.as_str())).collect();
    assert_eq!(ours, sorted);
    for registration in held {
        ok(registration.deregister_within(Duration::from_secs(2)).await, "deregister");
    }
    let listed = ok(clients.services().await, "services");
    assert!(!listed.iter().any(|name| name.as_str().starts_with(stem.as_str())), "{listed:?}");
}

/// An entry that an operator removes is back if its owner lives; one that is not there is an error.
pub async fn removed_by_hand_is_back(fixture: &impl Fixture) {
    let (servers, operator, service) = (open(fixture), open(fixture), service());
    let registration = ok(servers.register(instance(&service, 1)).await, "register");
    let mut watch = operator.watch(&service);
    let visible = fixture.caps().visible;
    until(&mut watch, visible, "seen", |s| s.len() == 1).await;
    let error = operator.remove(&service, &InstanceId::new("nobody").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain());
    ok(operator.remove(&service, &registration.id()).await, "remove");
    let start = Instant::now();
    let restored = fixture.caps().restored;
    eventually(restored, "it is back", async || fixture.count(&service).await.unwrap() == 1).await;
    let is_confirmed = |s: &Snapshot| s.get(&registration.id()).is_some_and(|listed| !listed.is_held());
    until(&mut watch, visible + restored - start.elapsed().min(restored), "seen again", is_confirmed).await;
    ok(timeout(SOON, registration.registered()).await.expect("not registered again"), "registered");
}

/// `keep_registered` returns at once, and says when it is published.
pub async fn kept_registered_from_the_start(fixture: &impl Fixture) {
    let (servers, service) = (open(fixture), service());
    let registration = servers.keep_registered(instance(&service, 1));
    ok(timeout(SOON, registration.registered()).await.expect("never registered"), "registered");
    assert_eq!(fixture.count(&service).await.unwrap(), 1);
    ok(registration.deregister().await, "deregister");
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
}

/// A `register` that is dropped at any point leaves no entry.
pub async fn dropped_halfway_leaves_nothing(fixture: &impl Fixture) {
    let (servers, service) = (open(fixture), service());
    let mut random = fastrand::Rng::with_seed(5);
    for n in 0..60 {
        let pause = Duration::from_micros(random.u64(0..4000));
        // Whether it was through by then is chance.
        let _ = timeout(pause, servers.register(instance(&service, n))).await;
    }
    let within = SOON + fixture.caps().ttl.unwrap_or_default();
    eventually(within, "no entry is left", async || fixture.count(&service).await.unwrap() == 0).await;
    ok(servers.close(Duration::from_secs(5)).await, "close");
}
