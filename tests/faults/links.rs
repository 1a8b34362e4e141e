//! Rows 9, 10, 13 and 21: links that are cut, silent and slow.

use std::time::Duration;

use callsign::{InstanceId, Snapshot, Status};
use callsign_testkit::etcd::EtcdFixture;
use callsign_testkit::fixture::{Fixture, Served, Tuning};
use callsign_testkit::record::confirmed;
use callsign_testkit::wait::{eventually, ok, until, until_status};
use tokio::time::{Instant, sleep};

use crate::scene::{BACK, Scene, TTL, TUNING, long};

/// Row 9: no registrar reaches the registry for three TTLs: all entries expire, one soon after the other, and from
/// the third on they are held.
pub(crate) async fn row_9_registrars_cut_off<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let back = scene.fixture.caps().back;
    let start = Instant::now();
    scene.servers_link.blackhole();
    eventually(TTL + Duration::from_secs(3), "all entries are gone", async || scene.entries().await == 0)
        .await;
    let held = |s: &Snapshot| s.len() >= 2 && confirmed(s).is_empty();
    until(&mut scene.cast.watch, Duration::from_secs(2), "they are held", held).await;
    sleep((TTL * 3).saturating_sub(start.elapsed())).await;
    scene.servers_link.heal();
    scene.recovers(back).await;
    scene.cast.recorder.check_never_empty();
    scene.cast.recorder.check_safety();
    scene.cast.traffic.finish_without_failure().await;
}

/// Row 10: the instancer does not reach the registry for five minutes, while one comes and one goes.
pub(crate) async fn row_10_instancer_cut_off<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let back = scene.fixture.caps().back;
    scene.fixture.link().unwrap().blackhole();
    scene.goes_stale(Duration::from_secs(15)).await;
    let new = crate::backend::Backend::start(&scene.url(), &scene.cast.service).await;
    scene.cast.backends.push(new);
    sleep(long(5, 280)).await;
    // The one that goes serves on: the client cannot know that it is gone, and no call is to fail by that.
    let gone = InstanceId::new("127.0.0.1:9").unwrap();
    scene.fixture.inject(&scene.cast.service, &gone, "127.0.0.1:9").await.unwrap();
    scene.fixture.delete(&scene.cast.service, &gone).await.unwrap();
    scene.fixture.link().unwrap().heal();
    let all = scene.cast.ids();
    let exact = |s: &Snapshot| s.freshness().is_fresh() && confirmed(s).iter().eq(&all);
    until(&mut scene.cast.watch, back, "caught up with", exact).await;
    scene.cast.recorder.check_safety();
    scene.cast.traffic.finish_without_failure().await;
}

/// Row 13: history is compacted away while the watch is cut off.
pub(crate) async fn row_13_compacted_while_cut_off() {
    let mut scene = Scene::<EtcdFixture>::set(TUNING).await;
    let link = scene.fixture.link().unwrap();
    link.cut();
    let new = crate::backend::Backend::start(&scene.url(), &scene.cast.service).await;
    for n in 0..20 {
        scene.fixture.raw().put(&format!("elsewhere/{n}"), b"x", 0).await.unwrap();
    }
    scene.fixture.raw().compact().await.unwrap();
    let before = link.accepted();
    link.heal();
    eventually(BACK, "it reconnects", async || link.accepted() > before).await;
    scene.cast.recorder.check_never_missing(&scene.cast.ids());
    scene.cast.backends.push(new);
    let all = scene.cast.ids();
    let exact = |s: &Snapshot| s.freshness().is_fresh() && confirmed(s).iter().eq(&all);
    until(&mut scene.cast.watch, Duration::from_secs(2), "listed anew, and exact", exact).await;
    scene.cast.end_unharmed().await;
}

/// Row 13 again, with the watch open: a compaction alone disturbs nobody.
pub(crate) async fn row_13_compacted_while_open() {
    let mut scene = Scene::<EtcdFixture>::set(TUNING).await;
    let before = scene.cast.watch.snapshot();
    for n in 0..20 {
        scene.fixture.raw().put(&format!("elsewhere/{n}"), b"x", 0).await.unwrap();
    }
    scene.fixture.raw().compact().await.unwrap();
    let new = crate::backend::Backend::start(&scene.url(), &scene.cast.service).await;
    until(&mut scene.cast.watch, Duration::from_secs(2), "the new one is seen", |s| s.len() == 5).await;
    assert!(
        scene.cast.watch.snapshot().revision() <= before.revision() + 2,
        "{:?}",
        scene.cast.recorder.history()
    );
    scene.cast.backends.push(new);
    scene.cast.recorder.check_safety();
    scene.cast.traffic.finish_without_failure().await;
}

/// Row 21: a link that is slow, narrow, in pieces and broken now and then loses no registration.
pub(crate) async fn row_21_slow_link<F: Served>() {
    let scene = Scene::<F>::set(Tuning { ttl: Some(Duration::from_secs(15)), ..TUNING }).await;
    for link in [&scene.servers_link, scene.fixture.link().unwrap()] {
        link.latency(Duration::from_secs(1));
        link.bandwidth(8_000);
        link.slice(40);
    }
    let before = scene.fixture.written(&scene.cast.service).await.unwrap();
    let until_then = Instant::now() + long(20, 60);
    while Instant::now() < until_then {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(scene.entries().await, 4);
    }
    let after = scene.fixture.written(&scene.cast.service).await.unwrap();
    assert_eq!(before, after, "an entry was lost and written again");
    scene.cast.end_unharmed().await;
}

/// Row 21: resets alone cost no registration either.
pub(crate) async fn row_21_resets<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let back = scene.fixture.caps().back;
    let registry = ok(scene.fixture.open_via(&scene.servers_link, &TUNING), "open");
    let other = "other".parse::<callsign::ServiceName>().unwrap();
    let instance = callsign::Instance::new(&other, "127.0.0.1:9").unwrap();
    let mut own = ok(registry.register(instance).await, "register");
    for _ in 0..10 {
        scene.servers_link.reset();
        scene.fixture.link().unwrap().reset();
        sleep(Duration::from_millis(700)).await;
        assert_eq!(scene.entries().await, 4);
    }
    until_status(&mut own, back, "confirmed", Status::is_registered).await;
    scene.recovers(back).await;
    scene.cast.end_unharmed().await;
}
