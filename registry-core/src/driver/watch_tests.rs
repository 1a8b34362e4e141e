use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::{Instant, advance, sleep, timeout};

use crate::driver::script::{Feed, World, full, instance};
use crate::model::InstanceId;
use crate::*;

const SECOND: Duration = Duration::from_secs(1);

fn name() -> ServiceName {
    "s".parse().unwrap()
}

fn ports(snapshot: &Snapshot) -> Vec<u16> {
    let mut ports: Vec<_> = snapshot.iter().map(|listed| listed.address().port() - 1).collect();
    ports.sort_unstable();
    ports
}

fn gone(n: usize) -> Update {
    Update::Delta { put: vec![], gone: vec![(instance(n).id().clone(), Removal::Expired)] }
}

#[tokio::test(start_paused = true)]
async fn an_error_never_empties_the_set() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    assert!(watch.snapshot().freshness().is_pending());
    feed.send(Feed::Read(full(0..3))).unwrap();
    let first = watch.ready().await.unwrap();
    assert!(first.freshness().is_fresh());
    assert_eq!(ports(&first), [0, 1, 2]);
    for _ in 0..20 {
        feed.send(Feed::Fail(ErrorKind::Unavailable)).unwrap();
    }
    sleep(60 * SECOND).await;
    let stale = watch.snapshot();
    let Freshness::Stale { error, .. } = stale.freshness() else { panic!("{stale:?}") };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(ports(&stale), [0, 1, 2]);
    // One error, one publish, however often it repeats.
    assert_eq!(stale.revision(), first.revision() + 1);
    feed.send(Feed::Read(full(0..3))).unwrap();
    sleep(10 * SECOND).await;
    let fresh = watch.snapshot();
    assert!(fresh.freshness().is_fresh());
    assert_eq!(fresh.revision(), stale.revision() + 1);
}

#[tokio::test(start_paused = true)]
async fn pending_says_why() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    feed.send(Feed::Fail(ErrorKind::PermissionDenied)).unwrap();
    let pending = watch.changed().await.unwrap();
    assert!(pending.freshness().is_pending());
    assert_eq!(pending.freshness().error().unwrap().kind(), ErrorKind::PermissionDenied);
    feed.send(Feed::Read(full([]))).unwrap();
    let ready = watch.ready().await.unwrap();
    assert!(ready.freshness().is_fresh() && ready.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_change_goes_out_at_once_and_bursts_coalesce() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    feed.send(Feed::Read(full(0..4))).unwrap();
    let first = watch.ready().await.unwrap();
    assert_eq!(world.now(), Duration::ZERO);
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < 10 * SECOND {
        sleep(Duration::from_millis(10)).await;
        sent += 1;
        let put = vec![instance(0).with_weight(sent)];
        feed.send(Feed::Read(Update::Delta { put, gone: vec![] })).unwrap();
    }
    sleep(Duration::from_millis(150)).await;
    let last = watch.snapshot();
    let publishes = last.revision() - first.revision();
    assert!((95..=101).contains(&publishes), "{publishes} publishes for {sent} changes in 10 s");
    assert_eq!(last.get(instance(0).id()).unwrap().weight(), sent);
}

#[tokio::test(start_paused = true)]
async fn a_flapping_entry_ends_exact() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    feed.send(Feed::Read(full(0..8))).unwrap();
    let first = watch.ready().await.unwrap().revision();
    for n in 0..300 {
        sleep(Duration::from_millis(200)).await;
        let update =
            if n % 2 == 0 { gone(7) } else { Update::Delta { put: vec![instance(7)], gone: vec![] } };
        feed.send(Feed::Read(update)).unwrap();
    }
    sleep(SECOND).await;
    let last = watch.snapshot();
    assert_eq!(ports(&last), (0..8).collect::<Vec<_>>());
    assert!(last.revision() - first <= 300);
}

#[tokio::test(start_paused = true)]
async fn no_news_is_not_published() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    feed.send(Feed::Read(full(0..3))).unwrap();
    let first = watch.ready().await.unwrap();
    for _ in 0..10 {
        feed.send(Feed::Read(full([2, 1, 0]))).unwrap();
        sleep(SECOND).await;
    }
    assert_eq!(watch.snapshot().revision(), first.revision());
}

#[tokio::test(start_paused = true)]
async fn what_vanishes_together_is_held_until_grace_ends() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    feed.send(Feed::Read(full(0..4))).unwrap();
    watch.ready().await.unwrap();
    sleep(SECOND).await;
    feed.send(Feed::Read(full([]))).unwrap();
    sleep(SECOND).await;
    let held = watch.snapshot();
    assert!(held.freshness().is_fresh());
    assert_eq!(held.iter().filter(|listed| listed.is_held()).count(), 4);
    feed.send(Feed::Read(full(0..3))).unwrap();
    sleep(Duration::from_millis(28_900)).await;
    assert_eq!(watch.snapshot().len(), 4);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(ports(&watch.snapshot()), [0, 1, 2]);
    assert!(watch.snapshot().iter().all(|listed| !listed.is_held()));
}

#[tokio::test(start_paused = true)]
async fn grace_does_not_run_out_in_an_outage() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    feed.send(Feed::Read(full(0..4))).unwrap();
    watch.ready().await.unwrap();
    feed.send(Feed::Read(full([]))).unwrap();
    sleep(SECOND).await;
    feed.send(Feed::Fail(ErrorKind::Unavailable)).unwrap();
    sleep(300 * SECOND).await;
    assert_eq!(watch.snapshot().len(), 4);
    assert!(watch.snapshot().freshness().is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_hangs_is_an_error_and_tried_again() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    let pending = watch.changed().await.unwrap();
    assert_eq!(world.now(), 20 * SECOND);
    assert_eq!(pending.freshness().error().unwrap().kind(), ErrorKind::Timeout);
    feed.send(Feed::Read(full(0..1))).unwrap();
    assert_eq!(watch.ready().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_listing_is_not_broken_off_by_publishes() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    feed.send(Feed::Read(full(0..1))).unwrap();
    // Within the publish interval of the first: it falls due while the slow one is under way.
    feed.send(Feed::Read(full(0..2))).unwrap();
    feed.send(Feed::Slow(15 * SECOND, full(0..3))).unwrap();
    sleep(SECOND).await;
    assert_eq!(watch.snapshot().len(), 2);
    assert!(timeout(20 * SECOND, watch.changed()).await.is_ok());
    sleep(20 * SECOND).await;
    assert_eq!(watch.snapshot().len(), 3);
    assert_eq!(world.broken_off.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn lists_anew_now_and_then() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    feed.send(Feed::Read(full(0..2))).unwrap();
    watch.ready().await.unwrap();
    sleep(235 * SECOND).await;
    assert_eq!(world.relists.load(SeqCst), 0);
    sleep(130 * SECOND).await;
    assert_eq!(world.relists.load(SeqCst), 1);
    feed.send(Feed::Read(full(1..3))).unwrap();
    sleep(SECOND).await;
    assert_eq!(ports(&watch.snapshot()), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_is_neither_a_storm_nor_a_standstill() {
    let (world, feed) = World::fed();
    let _watch = world.open(Settings::default()).watch(&name());
    for _ in 0..10_000 {
        feed.send(Feed::Fail(ErrorKind::Unavailable)).unwrap();
    }
    sleep(300 * SECOND).await;
    let reads = world.reads.load(SeqCst);
    assert!((80..=220).contains(&reads), "{reads} attempts in 300 s");
}

#[tokio::test(start_paused = true)]
async fn one_source_for_all_subscribers_and_none_without() {
    let (world, feed) = World::fed();
    let registry = world.open(Settings::default());
    let mut watches: Vec<_> = (0..10).map(|_| registry.watch(&name())).collect();
    watches.extend(watches.clone());
    feed.send(Feed::Read(full(0..2))).unwrap();
    for watch in &mut watches {
        // Every handle is told once of what it has not returned yet, however late it looks.
        assert_eq!(watch.changed().await.unwrap().len(), 2);
        assert_eq!(watch.ready().await.unwrap().len(), 2);
        assert!(timeout(SECOND, watch.changed()).await.is_err());
    }
    assert_eq!(world.sources_made.load(SeqCst), 1);
    watches.truncate(1);
    sleep(SECOND).await;
    assert_eq!(world.sources.load(SeqCst), 1);
    drop(watches);
    sleep(SECOND).await;
    assert_eq!(world.sources.load(SeqCst), 0);
    // The next one starts anew, and the handle of the registry is not needed for it to go on.
    let mut again = registry.watch(&name());
    drop(registry);
    feed.send(Feed::Read(full(0..5))).unwrap();
    assert_eq!(again.ready().await.unwrap().len(), 5);
    assert_eq!(world.sources_made.load(SeqCst), 2);
}

/// Whatever the driver is doing, it stops at once: listing, following, pausing after an error.
#[tokio::test(start_paused = true)]
async fn stops_in_every_phase() {
    for phase in 0..3 {
        let (world, feed) = World::fed();
        let registry = world.open(Settings::default());
        let watch = registry.watch(&name());
        match phase {
            1 => feed.send(Feed::Read(full(0..2))).unwrap(),
            2 => (0..9).for_each(|_| feed.send(Feed::Fail(ErrorKind::Unavailable)).unwrap()),
            _ => {}
        }
        advance(Duration::from_millis(50)).await;
        drop(watch);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(world.sources.load(SeqCst), 0, "phase {phase}");
    }
}

#[tokio::test(start_paused = true)]
async fn close_ends_watches_with_an_error_and_keeps_their_last_set() {
    let (world, feed) = World::fed();
    let registry = world.open(Settings::default());
    let mut watch = registry.watch(&name());
    feed.send(Feed::Read(full(0..2))).unwrap();
    watch.changed().await.unwrap();
    let waiting = async { watch.changed().await.unwrap_err() };
    let (error, closed) = tokio::join!(waiting, registry.close(SECOND));
    closed.unwrap();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(watch.snapshot().len(), 2);
    // Who asks afterwards gets the last set while another holds it, and then the end.
    let mut late = registry.watch(&name());
    assert_eq!(late.changed().await.unwrap().len(), 2);
    assert_eq!(late.changed().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(
        registry.watch(&"other".parse().unwrap()).ready().await.unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_leaves_no_set_that_calls_itself_fresh() {
    let (world, feed) = World::fed();
    let registry = world.open(Settings::default());
    let mut watch = registry.watch(&name());
    feed.send(Feed::Read(full(0..2))).unwrap();
    watch.changed().await.unwrap();
    feed.send(Feed::Panic).unwrap();
    let last = watch.changed().await.unwrap();
    assert_eq!(ports(&last), [0, 1]);
    assert!(last.freshness().error().unwrap().to_string().contains("panicked"), "{last:?}");
    // Who asks anew gets a driver that works, though the dead one is still held.
    let mut again = registry.watch(&name());
    feed.send(Feed::Read(full(0..3))).unwrap();
    assert_eq!(again.ready().await.unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn changes_where_a_list_is_due_are_not_built_upon() {
    let (world, feed) = World::fed();
    let mut watch = world.open(Settings::default()).watch(&name());
    let delta = || Feed::Read(Update::Delta { put: vec![instance(7)], gone: vec![] });
    feed.send(delta()).unwrap();
    assert!(watch.changed().await.unwrap().freshness().is_pending());
    feed.send(Feed::Read(full(0..3))).unwrap();
    assert_eq!(watch.ready().await.unwrap().len(), 3);
    feed.send(Feed::Fail(ErrorKind::Unavailable)).unwrap();
    feed.send(delta()).unwrap();
    sleep(10 * SECOND).await;
    assert!(watch.snapshot().freshness().is_stale());
    assert_eq!(ports(&watch.snapshot()), [0, 1, 2]);
    assert_eq!(world.relists.load(SeqCst), 2);
}

/// A seeded run of changes, failures and pauses: revisions only grow, an error empties nothing, and in the end
/// the watch shows what the registry has.
#[tokio::test(start_paused = true)]
async fn random_schedules_converge() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (world, feed) = World::fed();
        let mut watch = world.open(Settings::default()).watch(&name());
        let mut model = std::collections::BTreeSet::new();
        let mut ever: std::collections::HashSet<InstanceId> = std::collections::HashSet::new();
        let (mut revision, mut listed) = (0, false);
        for _ in 0..50 {
            match rng.u8(0..10) {
                0..3 => feed.send(Feed::Fail(ErrorKind::Unavailable)).unwrap(),
                3..6 => {
                    // Never empty, so that whatever empties the watch is a fault of the driver.
                    model = (0..8).filter(|n| *n == 0 || rng.bool()).collect();
                    feed.send(Feed::Read(full(model.iter().copied()))).unwrap();
                }
                _ => {
                    model.insert(rng.usize(0..8));
                    feed.send(Feed::Read(full(model.iter().copied()))).unwrap();
                }
            }
            ever.extend(model.iter().map(|n| instance(*n).id().clone()));
            sleep(Duration::from_millis(rng.u64(0..6_000))).await;
            let now = watch.snapshot();
            assert!(now.revision() >= revision, "seed {seed}");
            assert!(now.iter().all(|listed| ever.contains(listed.id())), "seed {seed}");
            assert!(!(listed && now.is_empty()), "seed {seed}");
            revision = now.revision();
            listed |= !now.freshness().is_pending();
        }
        sleep(60 * SECOND).await;
        feed.send(Feed::Read(full(model.iter().copied()))).unwrap();
        sleep(60 * SECOND).await;
        let last = watch.ready().await.unwrap();
        assert!(last.freshness().is_fresh(), "seed {seed}");
        assert_eq!(
            ports(&last).into_iter().map(usize::from).collect::<Vec<_>>(),
            Vec::from_iter(model),
            "seed {seed}"
        );
    }
}
