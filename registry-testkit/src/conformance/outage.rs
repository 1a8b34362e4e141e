//! Outage: the server is killed, frozen and wiped, the link is cut, and nobody notices more than they must.

use std::time::Duration;

use callsign_core::{ErrorKind, InstanceId, Registration, Registry, ServiceName, Snapshot, Status};
use tokio::time::{Instant, sleep, timeout};

use super::safety::{Fault, schedule};
use super::watch::SOON;
use super::{full, instance, open, service, tuning};
use crate::fixture::{Fixture, Tuning};
use crate::record::{Recorder, confirmed};
use crate::wait::{eventually, ok, until, until_status};

/// Three registered instances, seen by a watch that is recorded.
struct Scene {
    service: ServiceName,
    servers: Registry,
    clients: Registry,
    held: Vec<Registration>,
    watch: callsign_core::InstanceWatch,
    recorder: Recorder,
}

impl Scene {
    async fn set(fixture: &impl Fixture, tuning: &Tuning) -> Self {
        let servers = ok(fixture.open(tuning), "open");
        let (clients, service) = (ok(fixture.open(tuning), "open"), service());
        let mut held = Vec::new();
        for n in 0..3 {
            held.push(ok(servers.register(instance(&service, n)).await, n));
        }
        let mut watch = clients.watch(&service);
        until(&mut watch, fixture.caps().visible, "all are seen", |s| s.len() == 3).await;
        let recorder = Recorder::start(watch.clone());
        Self { service, servers, clients, held, watch, recorder }
    }

    fn ids(&self) -> Vec<InstanceId> {
        self.held.iter().map(Registration::id).collect()
    }

    /// The watch notices within `within`, and shows what it showed.
    async fn goes_stale(&mut self, within: Duration) {
        let before = self.watch.snapshot();
        let stale = until(&mut self.watch, within, "stale", |s| s.freshness().is_stale()).await;
        let both = [&before, &stale].map(|s| s.iter().map(|listed| (**listed).clone()).collect::<Vec<_>>());
        assert_eq!(both[0], both[1]);
        assert!(stale.freshness().error().is_some());
    }

    /// Everything is as it should within `within`, and nothing was ever missing.
    async fn recovers(&mut self, fixture: &impl Fixture, within: Duration) {
        let start = Instant::now();
        let all = self.ids();
        let good = |s: &Snapshot| s.freshness().is_fresh() && confirmed(s).iter().eq(&all);
        until(&mut self.watch, within, "fresh and complete", good).await;
        let left = within.saturating_sub(start.elapsed()).max(Duration::from_millis(100));
        let what = "all entries are there";
        eventually(left, what, async || fixture.count(&self.service).await.is_ok_and(|count| count == 3))
            .await;
        for held in &mut self.held {
            let left = within.saturating_sub(start.elapsed()).max(Duration::from_millis(100));
            until_status(held, left, "registered again", Status::is_registered).await;
        }
        self.recorder.check_never_missing(&all);
        self.recorder.check_safety();
    }
}

/// With the registry down at first: nothing fails for good, everything says so, and all is well once it is up.
pub async fn down_at_start(fixture: &impl Fixture) {
    fixture.kill().await.unwrap();
    let (registry, service) = (open(fixture), service());
    let mut watch = registry.watch(&service);
    let mut kept = registry.keep_registered(instance(&service, 1));
    let says = |s: &Snapshot| s.freshness().is_pending() && s.freshness().error().is_some();
    let pending = until(&mut watch, fixture.caps().detects_kill, "pending, with the reason", says).await;
    assert!(pending.is_empty());
    let says = |s: &Status| matches!(s, Status::Pending { error: Some(_) });
    until_status(&mut kept, fixture.caps().detects_kill + SOON, "pending, with the reason", says).await;
    assert!(timeout(Duration::from_millis(500), watch.ready()).await.is_err());
    let start = Instant::now();
    let error = registry.register(instance(&service, 2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.chain());
    assert!(
        start.elapsed() < registry.settings().register_timeout + Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    fixture.start().await.unwrap();
    let good = |s: &Snapshot| s.freshness().is_fresh() && s.len() == 1;
    until(&mut watch, fixture.caps().recovers, "fresh, with the one that was kept", good).await;
    ok(timeout(SOON, kept.registered()).await.expect("not registered"), "registered");
    // The one that failed left nothing running.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.count(&service).await.unwrap(), 1);
}

/// Killed and started again on the same data.
pub async fn killed_and_back(fixture: &impl Fixture) {
    let mut scene = Scene::set(fixture, &tuning(fixture)).await;
    fixture.kill().await.unwrap();
    scene.goes_stale(fixture.caps().detects_kill).await;
    // Whoever looks for the first time during the outage is told that nothing is known, and why.
    let late = open(fixture);
    let mut late = late.watch(&scene.service);
    let says = |s: &Snapshot| s.freshness().is_pending() && s.freshness().error().is_some();
    until(&mut late, fixture.caps().detects_kill, "pending, with the reason", says).await;
    // Whoever joins a watch that there is has the last good set.
    assert_eq!(scene.clients.watch(&scene.service).snapshot().len(), 3);
    fixture.start().await.unwrap();
    scene.recovers(fixture, fixture.caps().recovers).await;
    until(&mut late, fixture.caps().recovers, "the late one is fresh", |s| s.len() == 3).await;
}

/// It answers nothing, and nobody gets an error from it.
pub async fn silent_and_back(fixture: &impl Fixture) {
    let mut scene = Scene::set(fixture, &tuning(fixture)).await;
    fixture.pause().await.unwrap();
    scene.goes_stale(fixture.caps().detects_silence).await;
    let says = |s: &Status| !s.is_registered();
    until_status(&mut scene.held[0], fixture.caps().detects_silence, "not confirmed", says).await;
    fixture.resume().await.unwrap();
    scene.recovers(fixture, fixture.caps().recovers).await;
    // The same by a link that drops everything.
    fixture.link().unwrap().blackhole();
    scene.goes_stale(fixture.caps().detects_silence).await;
    fixture.link().unwrap().heal();
    scene.recovers(fixture, fixture.caps().recovers).await;
}

/// Away for far longer than the entries may live.
pub async fn down_for_ten_ttls(fixture: &impl Fixture) {
    let mut scene = Scene::set(fixture, &tuning(fixture)).await;
    fixture.kill().await.unwrap();
    sleep(fixture.caps().ttl.unwrap_or(Duration::from_secs(1)) * 10).await;
    fixture.start().await.unwrap();
    scene.recovers(fixture, fixture.caps().recovers).await;
}

/// It comes back and has forgotten everything: no watch may show that as an empty service.
pub async fn wiped(fixture: &impl Fixture) {
    let mut scene = Scene::set(fixture, &tuning(fixture)).await;
    for _ in 0..2 {
        fixture.wipe().await.unwrap();
        fixture.start().await.unwrap();
        scene.recovers(fixture, fixture.caps().recovers + fixture.caps().detects_silence).await;
    }
}

/// What came and went while the link was cut is caught up with.
pub async fn missed_changes(fixture: &impl Fixture) {
    let tuning = Tuning { grace: Some(Duration::from_secs(2)), ..tuning(fixture) };
    let clients = ok(fixture.open(&tuning), "open");
    let (service, caps) = (service(), fixture.caps());
    let id = |n: u16| InstanceId::new(&format!("127.0.0.1:{}", 20_000 + n)).unwrap();
    let inject = async |n: u16| fixture.inject(&service, &id(n), id(n).as_str()).await.unwrap();
    for n in 0..20 {
        inject(n).await;
    }
    let mut watch = clients.watch(&service);
    until(&mut watch, caps.visible, "seen", |s| s.len() == 20).await;
    let recorder = Recorder::start(watch.clone());
    for round in 0..3u16 {
        let link = fixture.link().unwrap();
        if round == 1 {
            link.blackhole();
        } else {
            link.cut();
        }
        until(&mut watch, caps.detects_silence, "stale", |s| s.freshness().is_stale()).await;
        for n in 0..5 {
            fixture.delete(&service, &id(round * 5 + n)).await.unwrap();
            inject(20 + round * 5 + n).await;
        }
        link.heal();
        let wanted: Vec<_> = (5 + round * 5..25 + round * 5).map(|n| id(n).to_string()).collect();
        let exact = |s: &Snapshot| {
            let found: Vec<_> = s.iter().filter(|l| !l.is_held()).map(|l| l.address().to_string()).collect();
            s.freshness().is_fresh() && found == wanted
        };
        until(&mut watch, caps.recovers, &format!("round {round}: caught up with"), exact).await;
    }
    recorder.check_safety();
}

/// The server publishes, and its answer never arrives: one entry in the end, and none after the end.
pub async fn ambiguous_create(fixture: &impl Fixture) {
    let (servers, service, link) = (open(fixture), service(), fixture.link().unwrap());
    // So that there is a connection that works.
    ok(servers.services().await, "services");
    for n in 0..4u16 {
        link.drop_answers();
        let registration = servers.keep_registered(instance(&service, n));
        // Some requests get through, how many depends on what is asked for in between.
        sleep(Duration::from_millis(200 + 300 * u64::from(n))).await;
        link.reset();
        link.heal();
        let registered = timeout(fixture.caps().recovers + SOON, registration.registered());
        ok(registered.await.expect("not registered"), n);
        assert_eq!(fixture.count(&service).await.unwrap(), 1, "round {n}");
        ok(registration.deregister().await, n);
        assert_eq!(fixture.count(&service).await.unwrap(), 0, "round {n}");
        // A guard that is dropped before the answer came.
        link.drop_answers();
        let registration = servers.keep_registered(instance(&service, n));
        sleep(Duration::from_millis(100)).await;
        drop(registration);
        sleep(Duration::from_millis(100)).await;
        link.reset();
        link.heal();
        let within = SOON + fixture.caps().ttl.unwrap_or_default();
        let what = format!("round {n}: no entry is left");
        eventually(within, &what, async || fixture.count(&service).await.unwrap() == 0).await;
    }
}

/// Whoever leaves while the registry is away is through in time, and its entry expires.
pub async fn leaving_is_bounded(fixture: &impl Fixture) {
    let mut scene = Scene::set(fixture, &tuning(fixture)).await;
    fixture.link().unwrap().blackhole();
    let within = Duration::from_secs(2);
    let start = Instant::now();
    let one = scene.held.pop().unwrap();
    let left = timeout(within * 2, one.deregister_within(within)).await.expect("deregister_within hangs");
    assert!(left.is_err(), "the registry cannot have been told");
    drop(scene.held.pop());
    let closed = timeout(within * 2, scene.servers.close(within)).await.expect("close hangs");
    assert!(closed.is_err(), "the registry cannot have been told");
    assert!(start.elapsed() < within * 3);
    fixture.link().unwrap().heal();
    let expired = fixture.caps().ttl.unwrap_or_default() + fixture.caps().recovers;
    eventually(expired, "all are gone", async || fixture.count(&scene.service).await.unwrap() == 0).await;
}

/// An owner that vanishes without a word: its entry is gone within the TTL and two seconds.
pub async fn crashed_owner_expires(fixture: &impl Fixture) {
    let ttl = fixture.caps().ttl.expect("a registry of leases has a TTL");
    let scene = Scene::set(fixture, &tuning(fixture)).await;
    // Nothing that its end may want to say arrives.
    fixture.link().unwrap().blackhole();
    let start = Instant::now();
    drop(scene.held);
    let _ = scene.servers.close(Duration::ZERO).await;
    drop(scene.servers);
    let gone = async || fixture.count(&scene.service).await.unwrap() == 0;
    eventually(ttl + Duration::from_secs(2), "expired", gone).await;
    assert!(start.elapsed() >= ttl / 3, "it was withdrawn, not expired, after {:?}", start.elapsed());
}

/// Random changes with random faults between them.
pub async fn random_faults(fixture: &impl Fixture) {
    const FAULTS: &[Fault] =
        &[Fault::Kill, Fault::Pause, Fault::Wipe, Fault::Cut, Fault::Blackhole, Fault::Reset];
    for seed in 0..if full() { 60 } else { 3 } {
        schedule(fixture, seed, 40, Some(FAULTS)).await;
    }
}
