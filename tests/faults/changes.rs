//! Rows 14, 15, 18, 22 and 23: what others do to the entries.

use std::time::Duration;

use callsign::{Instance, InstanceId, Snapshot, Status};
use callsign_testkit::fixture::{SecondClaim, Served};
use callsign_testkit::record::confirmed;
use callsign_testkit::wait::{eventually, ok, until, until_status};
use tokio::time::{Instant, interval};

use crate::scene::{Scene, TUNING, long};

const TWO: Duration = Duration::from_secs(2);

/// Row 14: an operator revokes the leases, of one and of all.
pub(crate) async fn row_14_leases_revoked<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let (all, within) = (scene.cast.ids(), scene.fixture.caps().restored);
    for some in [&all[..1], &all[..]] {
        for id in some {
            scene.fixture.revoke(&scene.cast.service, id).await.unwrap();
        }
        eventually(within, "all entries are back", async || scene.entries().await == 4).await;
        let good = |s: &Snapshot| confirmed(s).iter().eq(&all);
        until(&mut scene.cast.watch, TWO, "all are confirmed", good).await;
    }
    scene.cast.recorder.check_never_empty();
    scene.cast.recorder.check_safety();
    scene.cast.traffic.finish_without_failure().await;
}

/// Row 15: keys are deleted by hand, one and then all that are below the service.
pub(crate) async fn row_15_keys_deleted<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let (all, within) = (scene.cast.ids(), scene.fixture.caps().restored);
    for round in 0..2 {
        if round == 0 {
            scene.fixture.delete(&scene.cast.service, &all[0]).await.unwrap();
        } else {
            assert_eq!(scene.fixture.delete_all(&scene.cast.service).await.unwrap(), 4);
        }
        eventually(within, "all entries are back", async || scene.entries().await == 4).await;
        let good = |s: &Snapshot| confirmed(s).iter().eq(&all);
        until(&mut scene.cast.watch, TWO, "all are confirmed", good).await;
    }
    scene.cast.recorder.check_never_empty();
    scene.cast.recorder.check_safety();
    scene.cast.traffic.finish_without_failure().await;
}

/// Row 18: malformed entries hide none of the good ones, which are published within a second.
pub(crate) async fn row_18_malformed_entries<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let bad = scene.fixture.inject_malformed(&scene.cast.service).await.unwrap();
    let counted = |s: &Snapshot| s.len() == 4 && s.skipped() == bad;
    until(&mut scene.cast.watch, Duration::from_secs(1), "skipped and counted", counted).await;
    let fresh = ok(scene.fixture.open(&TUNING), "open");
    until(&mut fresh.watch(&scene.cast.service), Duration::from_secs(1), "listed without them", counted)
        .await;
    scene.cast.end_unharmed().await;
}

/// Row 22: an entry comes and goes five times a second.
pub(crate) async fn row_22_flapping_entry<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    // Unregistered services have no traffic: this one is apart from the called ones.
    let service = "flapping".parse().unwrap();
    let (steady, flapping) =
        (InstanceId::new("127.0.0.1:8").unwrap(), InstanceId::new("127.0.0.1:9").unwrap());
    scene.fixture.inject(&service, &steady, "127.0.0.1:8").await.unwrap();
    let mut watch = scene.cast.clients.watch(&service);
    until(&mut watch, TWO, "seen", |s| s.len() == 1).await;
    let (before, start, length) = (watch.snapshot().revision(), Instant::now(), long(8, 60));
    let mut flaps = 0u32;
    // However long a write takes.
    let mut beat = interval(Duration::from_millis(100));
    while start.elapsed() < length {
        beat.tick().await;
        scene.fixture.inject(&service, &flapping, "127.0.0.1:9").await.unwrap();
        beat.tick().await;
        scene.fixture.delete(&service, &flapping).await.unwrap();
        flaps += 1;
    }
    let took = start.elapsed().as_secs_f64();
    let a_second = (watch.snapshot().revision() - before) as f64 / took;
    assert!(a_second <= 10.5, "{a_second} publishes a second");
    assert!(f64::from(flaps) / took > 3.0, "only {flaps} flaps");
    scene.fixture.inject(&service, &flapping, "127.0.0.1:7").await.unwrap();
    let exact = |s: &Snapshot| {
        confirmed(s).len() == 2 && s.get(&flapping).is_some_and(|listed| listed.address().port() == 7)
    };
    until(&mut watch, Duration::from_secs(1), "the final state is exact", exact).await;
    until(&mut scene.cast.watch, TWO, "nobody else noticed", |s| s.len() == 4).await;
    scene.cast.end_unharmed().await;
}

/// Row 23: two registrars of one id: the newest wins, the loser says so and harms nothing.
pub(crate) async fn row_23_two_registrars_of_one_id<F: Served>() {
    let mut scene = Scene::<F>::set(TUNING).await;
    let id = scene.cast.backends[0].id.clone();
    // In its place, as a server that was restarted while its old process still lives.
    let content = || Instance::new(&scene.cast.service, id.as_str()).unwrap();
    let (ours, theirs) = (ok(scene.fixture.open(&TUNING), "open"), ok(scene.fixture.open(&TUNING), "open"));
    let mut loser = ok(ours.register(content()).await, "register");
    let winner = ok(theirs.register(content().with_weight(7)).await, "register");
    let SecondClaim::TakesOver(within) = scene.fixture.caps().second_claim else {
        panic!("whoever has a server has no proof that an owner lives");
    };
    until_status(&mut loser, within, "superseded", |s| matches!(s, Status::Superseded)).await;
    ok(loser.deregister().await, "deregister");
    // The first owner of all ends too.
    let mut first = scene.cast.backends.remove(0);
    first.process().stop(Duration::from_secs(10)).await.unwrap();
    assert_eq!(scene.entries().await, 4);
    assert!(winner.status().is_registered());
    let is_winner = |s: &Snapshot| s.len() == 4 && s.get(&id).is_some_and(|listed| listed.weight() == 7);
    until(&mut scene.cast.watch, TWO, "the winner is listed", is_winner).await;
    scene.cast.recorder.check_never_missing(std::slice::from_ref(&id));
    scene.cast.recorder.check_safety();
}
