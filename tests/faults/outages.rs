//! Rows 1 to 5: the registry is killed, frozen, away for long, wiped.

use std::time::Duration;

use callsign::{Instance, Status};
use callsign_testkit::etcd::EtcdFixture;
use callsign_testkit::fixture::{Fixture, Served, Tuning};
use callsign_testkit::wait::{eventually, ok, until, until_status};
use tokio::time::sleep;

use crate::scene::{Scene, TUNING, long};

/// Row 1: killed for a minute, back with its data.
pub(crate) async fn row_1_killed_for_a_minute<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let back = scene.fixture.caps().back;
    let mut ever = scene.fixture.written(&scene.cast.service).await.unwrap();
    scene.fixture.kill().await.unwrap();
    scene.goes_stale(Duration::from_secs(2)).await;
    sleep(long(12, 60)).await;
    scene.fixture.start().await.unwrap();
    scene.recovers(back).await;
    ever.extend(scene.fixture.written(&scene.cast.service).await.unwrap());
    assert!(ever.len() <= 8, "an entry was written anew more than once: {ever:?}");
    scene.cast.end_unharmed().await;
}

/// Row 2: frozen, so that nobody gets an error from it.
pub(crate) async fn row_2_frozen_for_half_a_minute<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let back = scene.fixture.caps().back;
    let registry = ok(scene.fixture.open_via(&scene.servers_link, &TUNING), "open");
    let other = "other".parse::<callsign::ServiceName>().unwrap();
    let mut own = ok(registry.register(Instance::new(&other, "127.0.0.1:9").unwrap()).await, "register");
    scene.fixture.pause().await.unwrap();
    let unconfirmed = |status: &Status| !status.is_registered();
    until_status(&mut own, Duration::from_secs(10), "not confirmed", unconfirmed).await;
    scene.goes_stale(Duration::from_secs(15)).await;
    sleep(long(1, 20)).await;
    scene.fixture.resume().await.unwrap();
    scene.recovers(back).await;
    until_status(&mut own, back, "confirmed", Status::is_registered).await;
    scene.cast.end_unharmed().await;
}

/// Row 3: away for ten TTLs.
pub(crate) async fn row_3_down_for_ten_ttls<F: Served>() {
    let ttl = long(2, 5);
    let mut scene = Scene::<F>::set(Tuning { ttl: Some(ttl), ..TUNING }).await;
    let back = scene.fixture.caps().back;
    scene.fixture.kill().await.unwrap();
    sleep(ttl * 10).await;
    scene.fixture.start().await.unwrap();
    scene.recovers(back).await;
    scene.cast.end_unharmed().await;
}

/// Row 4: it comes back empty.
pub(crate) async fn row_4_wiped<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let back = scene.fixture.caps().back;
    scene.fixture.wipe().await.unwrap();
    scene.fixture.start().await.unwrap();
    scene.recovers(back).await;
    scene.cast.end_unharmed().await;
}

/// Row 4, the treacherous form: by the time that anybody reconnects, the new history is longer than the old one,
/// and nothing in an answer tells the two apart.
pub(crate) async fn row_4_wiped_and_its_revision_ahead() {
    let mut scene = Scene::<EtcdFixture>::set(TUNING).await;
    let revision = scene.fixture.raw().revision().await.unwrap();
    scene.servers_link.cut();
    scene.fixture.link().unwrap().cut();
    scene.fixture.wipe().await.unwrap();
    scene.fixture.start().await.unwrap();
    for n in 0..revision + 50 {
        scene.fixture.raw().put(&format!("elsewhere/{n}"), b"x", 0).await.unwrap();
    }
    // One that the watch must find, though it was written before the revision that the watch knows.
    let stranger = callsign::InstanceId::new("127.0.0.1:9").unwrap();
    scene.fixture.inject(&scene.cast.service, &stranger, "127.0.0.1:9").await.unwrap();
    for n in 0..50 {
        scene.fixture.raw().put(&format!("elsewhere/{n}"), b"y", 0).await.unwrap();
    }
    scene.servers_link.heal();
    scene.fixture.link().unwrap().heal();
    let within = Duration::from_secs(10);
    eventually(within, "all entries are back", async || scene.entries().await == 5).await;
    let all = scene.cast.ids();
    let good = |s: &callsign::Snapshot| {
        s.freshness().is_fresh()
            && s.get(&stranger).is_some()
            && all.iter().all(|id| s.get(id).is_some_and(|l| !l.is_held()))
    };
    until(&mut scene.cast.watch, within, "everything is found", good).await;
    scene.cast.recorder.check_never_missing(&all);
    scene.cast.recorder.check_safety();
    // The stranger serves nothing, and a call to it was not asked for: only what is registered and lives is called.
    scene.cast.traffic.finish_without_failure().await;
}

/// Row 5: it comes back empty, and one of the four is dead by then: that one is held until grace ends.
pub(crate) async fn row_5_wiped_and_one_dead<F: Served>() {
    let grace = long(4, 30);
    let mut scene = Scene::<F>::set(Tuning { grace: Some(grace), ..TUNING }).await;
    let back = scene.fixture.caps().back;
    scene.fixture.wipe().await.unwrap();
    let killed = tokio::time::Instant::now();
    let dead = scene.cast.backends.pop().unwrap();
    let dead_id = dead.id.clone();
    drop(dead);
    scene.fixture.start().await.unwrap();
    scene.recovers(back).await;
    let gone = grace + Duration::from_secs(5);
    until(&mut scene.cast.watch, gone, "the dead one is gone", |s| s.get(&dead_id).is_none()).await;
    scene.cast.recorder.check_never_missing(&scene.cast.ids());
    scene.cast.recorder.check_safety();
    let (calls, failures) = scene.cast.traffic.finish().await;
    let late: Vec<_> =
        failures.iter().filter(|failed| failed.ended - killed > Duration::from_secs(1)).collect();
    assert!(
        failures.len() <= 3 && late.is_empty(),
        "{} of {calls} calls failed: {failures:?}",
        failures.len()
    );
}
