//! Draining, deregistering, dropping and closing.

use super::*;

/// A drain that comes right behind an update drains what that one published.
#[tokio::test(start_paused = true)]
async fn draining_undoes_no_update() {
    let world = world(|_, _| None);
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    let (updated, drained) =
        tokio::join!(biased; registration.update(instance(0).with_weight(7)), registration.drain());
    updated.unwrap();
    drained.unwrap();
    assert_eq!((registration.instance().weight(), registration.instance().state()), (7, State::Draining));
    assert_eq!(world.calls().last(), Some(&Call::Write(State::Draining, 7)));
}

/// With its quota used up, etcd cannot say that an instance drains, and withdraws it all the same.
#[tokio::test(start_paused = true)]
async fn what_cannot_say_that_it_drains_serves_on_all_the_same() {
    let world = world(|_, call| is_write(call).then_some(Reply::Err(ErrorKind::Exhausted)));
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    let begun = Instant::now();
    registration.deregister().await.unwrap();
    assert!((2 * SECOND..3 * SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let released = times(&world, |call| call == Call::Release)[0];
    assert!(world.now() - released >= Duration::from_millis(1_900), "clients hear of it by that");
}

#[tokio::test(start_paused = true)]
async fn leaving_takes_two_phases() {
    let world = world(|_, _| None);
    let settings = Settings { drain: 5 * SECOND, ..Settings::default() };
    let registration = world.open(settings).register(instance(0)).await.unwrap();
    let begun = world.now();
    registration.deregister().await.unwrap();
    let calls = world.log();
    let at = |call| calls.iter().find(|(_, known)| *known == call).unwrap().0 - begun;
    assert!(at(Call::Write(State::Draining, 1)) < Duration::from_millis(10));
    assert!((5 * SECOND..6 * SECOND).contains(&at(Call::Release)));
    // The entry is kept alive while it drains.
    assert!(calls.iter().any(|(at, call)| *call == Call::Renew && *at > begun));
    sleep(TTL * 5).await;
    assert_eq!(world.calls().last(), Some(&Call::Release));
    assert_eq!(world.leases.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn leaving_a_dead_registry_is_bounded_and_never_revives() {
    for reply in [Reply::Hang, Reply::Err(ErrorKind::Unavailable)] {
        let world = world(move |now, _| (SECOND..600 * SECOND).contains(&now).then_some(reply));
        let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
        sleep(3 * SECOND).await;
        let begun = Instant::now();
        let error = registration.deregister().await.unwrap_err();
        assert!(begun.elapsed() <= Duration::from_millis(7_200), "{:?}", begun.elapsed());
        assert!(error.to_string().contains("expires within 6s"), "{error}");
        let claimed = claims(&world);
        sleep(700 * SECOND).await;
        assert_eq!(claims(&world), claimed);
        assert_eq!(world.leases.load(SeqCst), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn deregister_within_cuts_the_drain_delay() {
    let world = world(|_, _| None);
    let settings = Settings { drain: 60 * SECOND, ..Settings::default() };
    let registration = world.open(settings).register(instance(0)).await.unwrap();
    let begun = Instant::now();
    registration.deregister_within(4 * SECOND).await.unwrap();
    assert!((2 * SECOND..3 * SECOND).contains(&begun.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_guard_releases_although_the_registry_is_dropped_too() {
    let world = world(|_, _| None);
    let registry = world.open(Settings::default());
    let registration = registry.register(instance(0)).await.unwrap();
    drop((registration, registry));
    sleep(SECOND).await;
    assert_eq!(world.calls(), [Call::Take, Call::Release]);
    assert_eq!(world.leases.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_deregister_half_way_leaves_all_the_same() {
    let world = world(|_, _| None);
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    assert!(timeout(SECOND, registration.deregister()).await.is_err());
    sleep(10 * SECOND).await;
    assert_eq!(world.calls().last(), Some(&Call::Release));
    assert_eq!(world.leases.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn close_releases_what_is_held_and_what_was_dropped() {
    let world = World::new(Some(TTL), |_| Reply::Ok);
    let registry = world.open(Settings::default());
    let held = registry.register(instance(0)).await.unwrap();
    registry.close(10 * SECOND).await.unwrap();
    assert!(matches!(held.status(), Status::Released { error: None }));
    assert_eq!(world.leases.load(SeqCst), 0);
    let calls = world.calls();
    assert_eq!(calls, [Call::Take, Call::Write(State::Draining, 1), Call::Renew, Call::Release]);
    held.deregister().await.unwrap();
    // Closed is closed.
    let error = registry.register(instance(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(world.count(Call::Take), 1);
}

#[tokio::test(start_paused = true)]
async fn close_is_bounded() {
    let world = world(|now, _| (now > SECOND).then_some(Reply::Hang));
    let registry = world.open(Settings::default());
    let held = registry.register(instance(0)).await.unwrap();
    sleep(2 * SECOND).await;
    let begun = Instant::now();
    // It leaves as well as it can within the time, or is broken off.
    let _ = registry.close(4 * SECOND).await;
    assert!(begun.elapsed() <= Duration::from_millis(4_200), "{:?}", begun.elapsed());
    sleep(SECOND).await;
    assert_eq!(world.leases.load(SeqCst), 0);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn close_cuts_a_drain_delay_under_way() {
    let world = world(|_, _| None);
    let registry = world.open(Settings { drain: 60 * SECOND, ..Settings::default() });
    let registration = registry.register(instance(0)).await.unwrap();
    let (left, ()) = tokio::join!(registration.deregister(), async {
        sleep(SECOND).await;
        registry.close(2 * SECOND).await.unwrap();
    });
    left.unwrap();
    assert!(world.now() < 3 * SECOND, "{:?}", world.now());
    assert_eq!(world.calls().last(), Some(&Call::Release));
}

#[tokio::test(start_paused = true)]
async fn close_at_once_tries_once() {
    let world = world(|_, _| None);
    let registry = world.open(Settings::default());
    let held = registry.register(instance(0)).await.unwrap();
    registry.close(Duration::ZERO).await.unwrap();
    assert_eq!(world.calls(), [Call::Take, Call::Release]);
    held.deregister().await.unwrap();
}

/// The guard must not say that all is well when the registry's close could not withdraw the entry.
#[tokio::test(start_paused = true)]
async fn deregister_after_close_tells_what_came_of_it() {
    for reply in [Reply::Err(ErrorKind::PermissionDenied), Reply::Hang] {
        let world = world(move |_, call| (call == Call::Release).then_some(reply));
        let registry = world.open(Settings::default());
        let held = registry.register(instance(0)).await.unwrap();
        let _ = registry.close(SECOND).await;
        assert!(matches!(held.status(), Status::Released { error: Some(_) }), "{held:?}");
        let error = held.deregister().await.unwrap_err();
        assert!(error.to_string().contains("expires"), "{error}");
    }
}
