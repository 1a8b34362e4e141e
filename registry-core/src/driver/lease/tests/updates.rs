//! What is written while it is registered.

use super::*;

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
