//! Published, renewed, lost and claimed again.

use super::*;

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
