use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::{Instant, advance, sleep, timeout};

use crate::driver::script::{Call, Reply, World, instance};
use crate::*;

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(6);

/// A registry that works, but for what `broken` says of a time and a call.
fn world(broken: impl Fn(Duration, Call) -> Option<Reply> + Send + 'static) -> Arc<World> {
    let start = Instant::now();
    World::new(Some(TTL), move |call| broken(start.elapsed(), call).unwrap_or(Reply::Ok))
}

fn claims(world: &World) -> (usize, usize) {
    (world.count(Call::Take), world.count(Call::Again))
}

#[tokio::test(start_paused = true)]
async fn renews_at_a_third_of_the_ttl_and_does_nothing_else() {
    let world = world(|_, _| None);
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    assert!(registration.status().is_registered());
    sleep(TTL * 10).await;
    assert_eq!(claims(&world), (1, 0));
    let renewals = world.count(Call::Renew);
    assert!((28..=30).contains(&renewals), "{renewals}");
    // Read back every 30 s or so.
    assert!((1..=3).contains(&world.count(Call::Verify)));
}

#[tokio::test(start_paused = true)]
async fn keep_registered_waits_for_the_registry_and_says_why() {
    let world = world(|now, _| (now < 60 * SECOND).then_some(Reply::Err(ErrorKind::Unavailable)));
    let registration = world.open(Settings::default()).keep_registered(instance(0));
    sleep(30 * SECOND).await;
    let Status::Pending { error: Some(error) } = registration.status() else { panic!("{registration:?}") };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    registration.registered().await.unwrap();
    assert!(world.now() < 66 * SECOND, "{:?}", world.now());
    assert_eq!(world.count(Call::Again), 0);
}

#[tokio::test(start_paused = true)]
async fn register_gives_up_in_time_and_leaves_nothing_running() {
    for reply in [Reply::Err(ErrorKind::Unavailable), Reply::Hang] {
        let world = world(move |_, _| Some(reply));
        let registry = world.open(Settings::default());
        let error = registry.register(instance(0)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(world.now() <= 11 * SECOND, "{:?}", world.now());
        if reply != Reply::Hang {
            assert!(error.chain().contains("scripted Unavailable"), "{}", error.chain());
        }
        sleep(SECOND).await;
        assert_eq!(world.leases.load(SeqCst), 0);
        assert_eq!(world.calls().last(), Some(&Call::Release));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_fails_at_once() {
    for kind in [ErrorKind::PermissionDenied, ErrorKind::Conflict, ErrorKind::Invalid, ErrorKind::Unsupported]
    {
        let world = world(move |_, call| (call == Call::Take).then_some(Reply::Err(kind)));
        let error = world.open(Settings::default()).register(instance(0)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(world.now() < SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_register_half_way_releases() {
    let world = world(|_, call| (call == Call::Take).then_some(Reply::Hang));
    let registry = world.open(Settings::default());
    assert!(timeout(SECOND, registry.register(instance(0))).await.is_err());
    sleep(SECOND).await;
    assert_eq!(world.calls(), [Call::Take, Call::Release]);
    assert_eq!(world.leases.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_the_lease_outlives_costs_no_claim() {
    let world =
        world(|now, _| (SECOND..60 * SECOND).contains(&now).then_some(Reply::Err(ErrorKind::Unavailable)));
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    sleep(4 * SECOND).await;
    assert!(matches!(registration.status(), Status::Unconfirmed { .. }), "{registration:?}");
    sleep(10 * SECOND).await;
    // Longer than the TTL: it must be gone if the registry is up.
    assert!(matches!(registration.status(), Status::Reregistering { error: Some(_) }), "{registration:?}");
    sleep(47 * SECOND).await;
    assert!(registration.status().is_registered());
    assert_eq!(claims(&world), (1, 0));
    // It was read back before it was called registered again.
    let calls = world.log();
    let back = calls.iter().position(|(at, call)| *at >= 60 * SECOND && *call == Call::Renew).unwrap();
    assert_eq!(calls[back + 1].1, Call::Verify);
    let renewals = calls.iter().filter(|(at, call)| *at < 60 * SECOND && *call == Call::Renew).count();
    assert!((90..150).contains(&renewals), "{renewals}");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_forgot_gets_it_back_in_time() {
    for seed in 0..50 {
        let world = world(|now, call| match call {
            _ if (SECOND..60 * SECOND).contains(&now) => Some(Reply::Err(ErrorKind::Unavailable)),
            Call::Renew if now >= 60 * SECOND && now < 61 * SECOND => Some(Reply::Lost),
            _ => None,
        });
        let settings = Settings { seed: Some(seed), ..Settings::default() };
        let registration = world.open(settings).register(instance(0)).await.unwrap();
        sleep(66 * SECOND).await;
        assert!(registration.status().is_registered());
        assert_eq!(claims(&world), (1, 1));
        let again = world.log().into_iter().find(|(_, call)| *call == Call::Again).unwrap().0;
        assert!(again <= 65 * SECOND, "{again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_registry_s_own_word_of_a_loss_is_answered_at_once() {
    let world = world(|_, _| None);
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    sleep(SECOND).await;
    world.lose(Loss::Lost);
    sleep(Duration::from_millis(400)).await;
    assert!(registration.status().is_registered());
    assert_eq!(claims(&world), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn reading_it_back_finds_a_silent_loss() {
    let lost = std::sync::atomic::AtomicBool::new(false);
    let world = world(move |now, call| {
        (call == Call::Verify && now > 20 * SECOND && !lost.swap(true, SeqCst)).then_some(Reply::Lost)
    });
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    sleep(38 * SECOND).await;
    assert_eq!(claims(&world), (1, 1));
    assert!(registration.status().is_registered());
}

#[tokio::test(start_paused = true)]
async fn a_superseded_registration_never_writes_again() {
    for how in 0..4 {
        let world = world(move |now, call| match (how, call) {
            (0, Call::Renew) | (1, Call::Verify) => Some(Reply::Superseded),
            (2, Call::Renew) if now > SECOND => Some(Reply::Lost),
            (2, Call::Again) => Some(Reply::Superseded),
            _ => None,
        });
        let mut registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
        if how == 3 {
            world.lose(Loss::Superseded);
        }
        while !matches!(registration.status_changed().await, Status::Superseded) {}
        sleep(60 * SECOND).await;
        let calls = world.calls();
        assert_eq!(calls.last(), Some(&Call::Release), "{how}: {calls:?}");
        let error = registration.update(instance(0).with_weight(9)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Superseded);
        assert_eq!(registration.registered().await.unwrap_err().kind(), ErrorKind::Superseded);
        let left = Instant::now();
        registration.deregister().await.unwrap();
        assert!(left.elapsed() < SECOND);
        sleep(60 * SECOND).await;
        assert_eq!(world.calls(), calls, "{how}");
        assert_eq!(world.leases.load(SeqCst), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_does_not_cost_the_lease() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let world =
        world(move |_, call| (call == Call::Renew && first.swap(false, SeqCst)).then_some(Reply::Hang));
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    sleep(TTL).await;
    assert!(registration.status().is_registered(), "{registration:?}");
    let renewals: Vec<_> = world.log().into_iter().filter(|(_, call)| *call == Call::Renew).collect();
    assert!(renewals.len() >= 2 && renewals[1].0 < TTL, "{renewals:?}");
    assert_eq!(claims(&world), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_process_checks_before_it_calls_itself_registered() {
    let world = world(|_, _| None);
    let mut registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    assert!(registration.status_changed().await.is_registered());
    // All at once, as after SIGSTOP and SIGCONT.
    advance(TTL * 3).await;
    assert!(matches!(registration.status_changed().await, Status::Reregistering { error: None }));
    assert!(registration.status_changed().await.is_registered());
    let calls = world.calls();
    assert_eq!(calls[calls.len() - 2..], [Call::Renew, Call::Verify]);
}

#[tokio::test(start_paused = true)]
async fn updates_are_written_in_place() {
    let world = world(|_, _| None);
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    registration.update(instance(0).with_weight(5)).await.unwrap();
    registration.update(instance(0).with_weight(5)).await.unwrap();
    registration.drain().await.unwrap();
    assert_eq!(registration.instance().state(), State::Draining);
    let writes: Vec<_> = world.calls().into_iter().filter(|call| matches!(call, Call::Write(..))).collect();
    assert_eq!(writes, [Call::Write(State::Up, 5), Call::Write(State::Draining, 5)]);
    assert_eq!(claims(&world), (1, 0));
    let error = registration.update(instance(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("register another"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_update_in_an_outage_is_kept_and_written_later() {
    let world =
        world(|now, _| (SECOND..60 * SECOND).contains(&now).then_some(Reply::Err(ErrorKind::Unavailable)));
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    sleep(5 * SECOND).await;
    let error = registration.update(instance(0).with_weight(7)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.chain().contains("scripted"), "{}", error.chain());
    assert_eq!(registration.instance().weight(), 7);
    sleep(50 * SECOND).await;
    let last = world.log().into_iter().rev().find(|(_, call)| matches!(call, Call::Write(..))).unwrap();
    assert_eq!(last.1, Call::Write(State::Up, 7));
    assert!(last.0 >= 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_update_while_it_is_being_published_is_published_too() {
    let world =
        world(|now, call| (call == Call::Take && now < 3 * SECOND).then_some(Reply::Err(ErrorKind::Timeout)));
    let registration = world.open(Settings::default()).keep_registered(instance(0));
    sleep(SECOND).await;
    registration.update(instance(0).with_weight(3)).await.unwrap();
    assert!(registration.status().is_registered());
    assert_eq!(registration.instance().weight(), 3);
}

fn times(world: &World, wanted: impl Fn(Call) -> bool) -> Vec<Duration> {
    world.log().into_iter().filter(|(_, call)| wanted(*call)).map(|(at, _)| at).collect()
}

fn is_write(call: Call) -> bool {
    matches!(call, Call::Write(..))
}

/// E8: with its quota used up, etcd refuses writes and still renews. That what was refused is not there is no loss.
#[tokio::test(start_paused = true)]
async fn a_refused_write_is_neither_a_loss_nor_the_end_of_renewals() {
    for kind in [ErrorKind::Exhausted, ErrorKind::PermissionDenied, ErrorKind::Invalid] {
        let world = world(move |_, call| is_write(call).then_some(Reply::Err(kind)));
        let settings = Settings { verify: 3 * SECOND, ..Settings::default() };
        let registration = world.open(settings).register(instance(0)).await.unwrap();
        let error = registration.update(instance(0).with_weight(2)).await.unwrap_err();
        assert_eq!(error.kind() == kind, kind != ErrorKind::Exhausted, "{error:?}");
        sleep(TTL * 10).await;
        let renewals = times(&world, |call| call == Call::Renew);
        assert!(renewals.windows(2).all(|pair| pair[1] - pair[0] <= TTL / 2), "{renewals:?}");
        let writes = times(&world, is_write);
        assert!(writes.windows(2).all(|pair| pair[1] - pair[0] >= SECOND), "{writes:?}");
        assert!(world.count(Call::Verify) > 10);
        assert_eq!(claims(&world), (1, 0));
        // What was refused for what it is, is given up; what an operator can mend is tried on.
        let (weight, tries) = if kind == ErrorKind::Invalid { (1, 1) } else { (2, writes.len().max(2)) };
        assert_eq!((registration.instance().weight(), writes.len()), (weight, tries), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reading_back_confirms_a_write_whose_answer_was_lost() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let world = world(move |_, call| {
        is_write(call).then(|| match first.swap(false, SeqCst) {
            true => Reply::Done(ErrorKind::Timeout),
            false => Reply::Err(ErrorKind::Exhausted),
        })
    });
    let settings = Settings { verify: 3 * SECOND, ..Settings::default() };
    let registration = world.open(settings).register(instance(0)).await.unwrap();
    registration.update(instance(0).with_weight(2)).await.unwrap();
    assert!(world.now() < 5 * SECOND, "{:?}", world.now());
    let writes = world.calls().into_iter().filter(|call| is_write(*call)).count();
    sleep(TTL * 3).await;
    assert_eq!(world.calls().into_iter().filter(|call| is_write(*call)).count(), writes);
    assert_eq!(claims(&world), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn whatever_else_hangs_or_fails_the_lease_is_renewed_in_time() {
    let hanging: [fn(Call) -> bool; 2] = [is_write, |call| call == Call::Verify];
    for hangs in hanging {
        let world = world(move |_, call| hangs(call).then_some(Reply::Hang));
        let settings = Settings { verify: SECOND, ..Settings::default() };
        let registration = world.open(settings).register(instance(0)).await.unwrap();
        let _ = registration.update(instance(0).with_weight(2)).await;
        sleep(TTL * 10).await;
        let renewals = times(&world, |call| call == Call::Renew);
        assert!(renewals.windows(2).all(|pair| pair[1] - pair[0] < TTL), "{renewals:?}");
        assert_eq!(claims(&world), (1, 0));
    }
    for kind in [ErrorKind::Exhausted, ErrorKind::Other, ErrorKind::Unavailable] {
        let mut n = 0;
        // Every other renewal fails, and all writes do, so that the pauses between these grow.
        let mut fails = move |call| {
            n += usize::from(call == Call::Renew);
            is_write(call) || call == Call::Renew && n.is_multiple_of(2)
        };
        let world = World::new(Some(TTL), move |call| if fails(call) { Reply::Err(kind) } else { Reply::Ok });
        let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
        let _ = registration.update(instance(0).with_weight(2)).await;
        sleep(TTL * 10).await;
        let renewals = times(&world, |call| call == Call::Renew);
        assert!(renewals.windows(2).all(|pair| pair[1] - pair[0] <= TTL * 2 / 5), "{kind:?}: {renewals:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_is_confirmed_only_when_it_is_published() {
    let world = world(|now, call| (is_write(call) && now < 4 * SECOND).then_some(Reply::Hang));
    let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
    // The second finds the same content on its way, and the third finds it published.
    for _ in 0..2 {
        let update = registration.update(instance(0).with_weight(2));
        assert!(timeout(SECOND, update).await.is_err());
    }
    registration.update(instance(0).with_weight(2)).await.unwrap();
    assert!(world.now() >= 4 * SECOND, "{:?}", world.now());
    let writes = times(&world, is_write).len();
    registration.update(instance(0).with_weight(2)).await.unwrap();
    assert_eq!(times(&world, is_write).len(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_refused_update_does_not_hold_up_the_next() {
    for kind in [ErrorKind::Invalid, ErrorKind::PermissionDenied] {
        let world = world(move |_, call| (call == Call::Write(State::Up, 13)).then_some(Reply::Err(kind)));
        let registration = world.open(Settings::default()).register(instance(0)).await.unwrap();
        assert_eq!(registration.update(instance(0).with_weight(13)).await.unwrap_err().kind(), kind);
        let begun = Instant::now();
        registration.update(instance(0).with_weight(7)).await.unwrap();
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
        assert_eq!(registration.instance().weight(), 7);
    }
}

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

#[tokio::test(start_paused = true)]
async fn never_is_no_overflow() {
    let world = World::new(Some(TTL), |_| Reply::Ok);
    let never = Duration::MAX;
    let settings = Settings { verify: never, relist: never, grace: never, ..Settings::default() };
    let registry = world.open(settings);
    let held = registry.register(instance(0)).await.unwrap();
    let watch = registry.watch(&held.service());
    sleep(TTL * 10).await;
    assert_eq!(world.count(Call::Verify), 0);
    held.deregister_within(never).await.unwrap();
    registry.close(never).await.unwrap();
    drop(watch);
}

/// Any mix of failures, losses, updates and pauses, with the end at any moment: calls never overlap (the script
/// asserts it), after the end nothing is written, only the first claim takes over, and the end is in time.
#[tokio::test(start_paused = true)]
async fn every_interleaving_of_failure_and_stop_ends_well() {
    for seed in 0..500u64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut answers = rng.fork();
        let world = World::new(Some(TTL), move |call| match (answers.u8(0..20), call) {
            (0..3, _) => Reply::Err(ErrorKind::Unavailable),
            (3, _) => Reply::Hang,
            (4, _) => Reply::Err(ErrorKind::Exhausted),
            (7, _) => Reply::Done(ErrorKind::Timeout),
            (5, Call::Renew | Call::Verify | Call::Write(..)) => Reply::Lost,
            (6, Call::Again) if answers.bool() => Reply::Superseded,
            _ => Reply::Ok,
        });
        let settings = Settings { verify: 3 * SECOND, ..Settings::default() };
        let registration = world.open(settings).keep_registered(instance(0));
        for _ in 0..rng.u32(0..12) {
            match rng.u8(0..4) {
                0 => world.lose(Loss::Lost),
                1 => {
                    let update = registration.update(instance(0).with_weight(rng.u32(0..5)));
                    let _ = timeout(Duration::from_millis(rng.u64(0..3_000)), update).await;
                }
                _ => sleep(Duration::from_millis(rng.u64(0..20_000))).await,
            }
        }
        let superseded = matches!(registration.status(), Status::Superseded);
        let begun = Instant::now();
        match rng.u8(0..3) {
            0 => drop(registration),
            1 => drop(registration.deregister().await),
            _ => drop(timeout(Duration::from_millis(rng.u64(0..2_000)), registration.deregister()).await),
        }
        let took = begun.elapsed();
        assert!(took <= Duration::from_millis(7_200), "seed {seed}: {took:?}");
        sleep(8 * SECOND).await;
        assert_eq!(world.leases.load(SeqCst), 0, "seed {seed}");
        let calls = world.calls();
        let first_again = calls.iter().position(|call| *call == Call::Again).unwrap_or(calls.len());
        assert!(calls[first_again..].iter().all(|call| *call != Call::Take), "seed {seed}: {calls:?}");
        if !superseded {
            let release = calls.iter().rposition(|call| *call != Call::Release).map_or(0, |at| at + 1);
            assert!(release < calls.len() || calls.is_empty(), "seed {seed}: {calls:?}");
        }
        sleep(100 * SECOND).await;
        assert_eq!(world.calls().len(), calls.len(), "seed {seed}");
    }
}
