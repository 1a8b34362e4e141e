//! Rows 6 to 8: a backend is killed, asked to leave, frozen.

use std::time::Duration;

use callsign::{Instance, Snapshot, State};
use callsign_testkit::fixture::Served;
use callsign_testkit::wait::{eventually, ok, until};
use tokio::time::{Instant, sleep};

use crate::backend::Backend;
use crate::scene::{Scene, TTL, TUNING, long};

/// Row 6: killed. Its entry is gone with its TTL, and calls leave it at once.
pub(crate) async fn row_6_backend_killed<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let dead = scene.cast.backends.pop().unwrap();
    let dead_id = dead.id.clone();
    let killed = Instant::now();
    drop(dead);
    let two = Duration::from_secs(2);
    eventually(TTL + two, "its entry is gone", async || scene.entries().await == 3).await;
    until(&mut scene.cast.watch, Duration::from_secs(1), "it is gone", |s| s.get(&dead_id).is_none()).await;
    assert!(killed.elapsed() <= TTL + two + Duration::from_secs(1));
    scene.cast.recorder.check_never_missing(&scene.cast.ids());
    let (calls, failures) = scene.cast.traffic.finish().await;
    let late: Vec<_> =
        failures.iter().filter(|failed| failed.ended - killed > Duration::from_millis(500)).collect();
    assert!(
        late.is_empty() && failures.len() <= 3,
        "{} of {calls} calls failed: {failures:?}",
        failures.len()
    );
}

/// Row 7: asked to leave: it says so first, and no call fails.
pub(crate) async fn row_7_backend_leaves<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let mut leaver = scene.cast.backends.pop().unwrap();
    let id = leaver.id.clone();
    leaver.process().terminate().unwrap();
    let draining = |s: &Snapshot| s.get(&id).is_some_and(|listed| listed.state() == State::Draining);
    until(&mut scene.cast.watch, Duration::from_secs(1), "draining", draining).await;
    until(&mut scene.cast.watch, Duration::from_secs(3), "gone", |s| s.get(&id).is_none()).await;
    assert!(leaver.process().ended(Duration::from_secs(10)).await.unwrap().success());
    scene.cast.end_unharmed().await;
}

/// Row 7: one after the other is replaced, over and over.
pub(crate) async fn row_7_rolling_restarts<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let url = scene.url();
    for round in 0..long(8, 100).as_secs() {
        let new = Backend::start(&url, &scene.cast.service).await;
        until(&mut scene.cast.watch, TTL, "the new one is seen", |s| s.get(&new.id).is_some()).await;
        scene.cast.backends.push(new);
        let mut old = scene.cast.backends.remove(0);
        let status = old.process().stop(Duration::from_secs(10)).await.unwrap();
        assert!(status.success(), "round {round}: {status}");
    }
    scene.cast.recorder.check_safety();
    scene.cast.traffic.finish_without_failure().await;
}

/// Row 8: frozen for three TTLs. It expires once, and is back once it goes on. Meanwhile it gets none of the calls that
/// begin later than 3 s after: it is the one that calls go to, as of one that was slow at first, and is called once in many
/// seconds, it is known only then that it stands.
pub(crate) async fn row_8_backend_frozen<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let id = scene.cast.traffic.most_called().await;
    let frozen = scene.cast.backends.iter_mut().find(|backend| backend.id == id).unwrap();
    let start = Instant::now();
    frozen.process().pause().unwrap();
    until(&mut scene.cast.watch, TTL + Duration::from_secs(3), "expired", |s| s.get(&id).is_none()).await;
    sleep((TTL * 3).saturating_sub(start.elapsed())).await;
    frozen.process().resume().unwrap();
    eventually(Duration::from_secs(2), "its entry is back", async || scene.entries().await == 4).await;
    until(&mut scene.cast.watch, Duration::from_secs(1), "it is back", |s| s.get(&id).is_some()).await;
    sleep(Duration::from_secs(1)).await;
    let there: Vec<bool> =
        scene.cast.recorder.history().iter().map(|(_, snapshot)| snapshot.get(&id).is_some()).collect();
    let changes = there.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 2, "once away, once back: {there:?}");
    scene
        .cast
        .recorder
        .check_never_missing(&scene.cast.ids().into_iter().filter(|other| *other != id).collect::<Vec<_>>());
    scene.cast.recorder.check_safety();
    let (calls, failures) = scene.cast.traffic.finish().await;
    println!("measured: {} of {calls} calls failed", failures.len());
    let late = failures.iter().find(|failed| failed.begun - start > Duration::from_secs(3));
    assert!(late.is_none() && failures.len() <= 25, "{} of {calls} failed, {late:?}", failures.len());
}

/// Row 8: a successor has the id by the time that the frozen one goes on: it is not overwritten.
pub(crate) async fn row_8_no_zombie_overwrites_its_successor<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let id = scene.cast.backends[0].id.clone();
    scene.cast.backends[0].process().pause().unwrap();
    until(&mut scene.cast.watch, TTL + Duration::from_secs(3), "expired", |s| s.get(&id).is_none()).await;
    let content = Instance::new(&scene.cast.service, id.as_str()).unwrap().with_weight(42);
    let successor = ok(scene.cast.clients.register(content).await, "register");
    let is_successor = |s: &Snapshot| s.get(&id).is_some_and(|listed| listed.weight() == 42);
    until(&mut scene.cast.watch, Duration::from_secs(2), "the successor is seen", is_successor).await;
    let seen = Instant::now();
    scene.cast.backends[0].process().resume().unwrap();
    // There is no condition to wait for: it is to leave things as they are.
    sleep(Duration::from_secs(5)).await;
    assert!(successor.status().is_registered(), "{:?}", successor.status());
    let after: Vec<_> = scene.cast.recorder.history().into_iter().filter(|(at, _)| *at >= seen).collect();
    assert!(after.iter().all(|(_, snapshot)| is_successor(snapshot)), "{after:?}");
    assert_eq!(scene.entries().await, 4);
    // Nor does its end take the successor along.
    let mut zombie = scene.cast.backends.remove(0);
    zombie.process().stop(Duration::from_secs(10)).await.unwrap();
    assert!(is_successor(&scene.cast.watch.snapshot()));
    assert_eq!(scene.entries().await, 4);
}
