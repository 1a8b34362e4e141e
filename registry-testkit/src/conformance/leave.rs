//! Leaving: two phases, dropped guards, bounds, and nothing that comes back.

use std::time::Duration;

use callsign_core::{ErrorKind, Listed, Snapshot, State};
use tokio::time::{Instant, sleep, timeout};

use super::watch::{SOON, tasks};
use super::{DRAIN, instance, open, service, tuning};
use crate::fixture::{Fixture, SecondClaim, Tuning};
use crate::record::Recorder;
use crate::wait::{eventually, ok, until};

/// First it says that it leaves, then it serves on for the drain delay, then it is gone: not held back, since it
/// was announced.
pub async fn in_two_phases(fixture: &impl Fixture) {
    let (servers, clients, service) = (open(fixture), open(fixture), service());
    let registration = ok(servers.register(instance(&service, 1)).await, "register");
    let id = registration.id();
    let mut watch = clients.watch(&service);
    until(&mut watch, fixture.caps().visible, "seen", |s| s.len() == 1).await;
    let recorder = Recorder::start(watch.clone());
    let start = Instant::now();
    ok(registration.deregister().await, "deregister");
    let took = start.elapsed();
    assert!(took >= DRAIN && took < DRAIN + servers.settings().request_timeout, "{took:?}");
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
    until(&mut watch, fixture.caps().visible, "gone", Snapshot::is_empty).await;
    let draining = |s: &Snapshot| s.get(&id).is_some_and(|listed| listed.state() == State::Draining);
    let said = recorder.first(start, draining);
    assert_eq!(said.is_some(), fixture.caps().stores_state, "draining was seen: {:?}", recorder.history());
    if let (Some((said, _)), Some((gone, _))) = (said, recorder.first(start, Snapshot::is_empty)) {
        assert!(gone - said >= DRAIN / 2, "draining for {:?}", gone - said);
    }

    // A guard can also drain and stay, and want requests again.
    let registration = ok(servers.register(instance(&service, 2)).await, "register");
    ok(registration.drain().await, "drain");
    let wants_none = |s: &Snapshot| s.iter().all(|listed| listed.state() != State::Up);
    until(&mut watch, fixture.caps().visible, "draining", wants_none).await;
    ok(registration.update(instance(&service, 2)).await, "up again");
    let wants = |s: &Snapshot| s.iter().any(|listed| listed.state() == State::Up);
    until(&mut watch, fixture.caps().visible, "up again", wants).await;
}

/// A dropped guard withdraws its entry without drain delay.
pub async fn drop_withdraws(fixture: &impl Fixture) {
    let before = tasks();
    let (servers, clients, service) = (open(fixture), open(fixture), service());
    let mut watch = clients.watch(&service);
    let registration = ok(servers.register(instance(&service, 1)).await, "register");
    until(&mut watch, fixture.caps().visible, "seen", |s| s.len() == 1).await;
    drop(registration);
    let is_gone = |s: &Snapshot| s.iter().all(Listed::is_held);
    until(&mut watch, fixture.caps().visible, "gone", is_gone).await;
    // The guard's end goes on although the last handle of its registry is gone, and then nothing runs any more.
    let registration = ok(servers.register(instance(&service, 2)).await, "register");
    drop((servers, clients, watch, registration));
    eventually(SOON, "nothing is left", async || fixture.count(&service).await.unwrap() == 0).await;
    eventually(SOON, "all tasks ended", async || tasks() <= before).await;
}

/// `deregister_within` cuts the drain delay down to fit.
pub async fn within_its_bound(fixture: &impl Fixture) {
    let tuning = Tuning { drain: Some(Duration::from_secs(60)), ..tuning(fixture) };
    let (servers, service) = (ok(fixture.open(&tuning), "open"), service());
    let registration = ok(servers.register(instance(&service, 1)).await, "register");
    let start = Instant::now();
    ok(registration.deregister_within(Duration::from_secs(2)).await, "deregister");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
}

/// The registry's end is every registration's end, and nothing is published after it.
pub async fn close_releases_all_and_revives_nothing(fixture: &impl Fixture) {
    let verify = Duration::from_millis(200);
    let tuning = Tuning { verify: Some(verify), ..tuning(fixture) };
    let (servers, service) = (ok(fixture.open(&tuning), "open"), service());
    let mut held = Vec::new();
    for n in 0..5 {
        held.push(ok(servers.register(instance(&service, n)).await, n));
    }
    // One that is still being published, and one that was dropped just now.
    held.push(servers.keep_registered(instance(&service, 5)));
    drop(held.swap_remove(0));
    let start = Instant::now();
    ok(servers.close(Duration::from_secs(5)).await, "close");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
    for registration in &held {
        let error = registration.update(instance(&service, 9)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Closed), "{}", error.chain());
    }
    let error = timeout(SOON, servers.register(instance(&service, 9))).await.expect("hangs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{}", error.chain());
    // Nothing revives it, whatever timer is still to fire: there is no condition to wait for but time.
    sleep(verify * 5).await;
    assert_eq!(fixture.count(&service).await.unwrap(), 0);
    // Leaving again is no error.
    for registration in held {
        ok(timeout(SOON, registration.deregister()).await.expect("hangs"), "deregister after close");
    }
    ok(servers.close(Duration::from_secs(1)).await, "close again");
}

/// Whoever lost the id to another owner does not take that one's entry along, however it ends.
pub async fn a_superseded_one_leaves_the_other(fixture: &impl Fixture) {
    let (ours, theirs, service) = (open(fixture), open(fixture), service());
    for end in 0..3 {
        let id = instance(&service, end);
        let first = ok(ours.register(id.clone()).await, "register");
        let first = match fixture.caps().second_claim {
            SecondClaim::TakesOver(_) => first,
            // The other can only come after it: its late end must do no harm either.
            SecondClaim::Conflict => {
                ok(first.deregister_within(Duration::from_secs(1)).await, "deregister");
                let second = ok(theirs.register(id.clone()).await, "register");
                let refused = ours.register(id.clone()).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Conflict);
                assert_eq!(fixture.count(&service).await.unwrap(), 1);
                ok(second.deregister_within(Duration::from_secs(1)).await, "deregister");
                continue;
            }
        };
        let second = ok(theirs.register(id).await, "register");
        // At once, so that the first may not have heard of it yet.
        match end {
            0 => drop(first),
            1 => ok(first.deregister().await, "deregister"),
            _ => {
                drop(first);
                ok(ours.close(Duration::from_secs(5)).await, "close");
            }
        }
        // Its end may go on in the background.
        sleep(Duration::from_millis(300)).await;
        assert_eq!(fixture.count(&service).await.unwrap(), 1, "end {end}");
        assert!(second.status().is_registered(), "{:?}", second.status());
        ok(second.deregister_within(Duration::from_secs(1)).await, "deregister");
    }
}
