//! The endpointer and its balancers. `Go kit N` and `Rust peers N` are the traps of PEERS.md, by their numbers.

mod support;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use callsign_core::{Instance, Registry, Update};
use callsign_lb::{
    Balancer, BoxError, Call, Endpointer, Factory, Lifeline, PickError, Random, ReadySet, RoundRobin,
};
use support::{Counts, Probe, Script, book, eventually, memory, service, within};

fn ports(set: &ReadySet<Probe>) -> Vec<u16> {
    // Slots are sorted by id, which is text.
    let mut ports: Vec<_> = set.slots().iter().map(|slot| slot.instance().address().port()).collect();
    ports.sort_unstable();
    ports
}

async fn ready(endpoints: &Endpointer<Probe>, wanted: &[u16]) {
    let what = format!("{wanted:?} ready");
    within(Duration::from_secs(10), &what, endpoints.wait_for(|set| ports(set) == wanted)).await;
}

fn over(counts: &Arc<Counts>, registry: &Registry) -> Endpointer<Probe> {
    Endpointer::new(registry.watch(&service()), counts.factory())
}

/// Go kit 23: closing closes what there is, and ends the work.
#[tokio::test]
async fn dropping_the_last_handle_drops_every_endpoint() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::new(watch, counts.factory());
    let balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    script.lists([1, 2]);
    ready(&endpoints, &[1, 2]).await;
    let idle = balancer.clone();
    drop(endpoints);
    drop(balancer);
    assert_eq!(counts.alive(), 2, "a handle is left");
    drop(idle);
    eventually("endpoints dropped", || counts.alive() == 0).await;
}

/// Go kit 24: a factory that failed is asked again although nothing changes; Rust peers 7: for ever.
#[tokio::test(start_paused = true)]
async fn a_failed_factory_is_asked_again() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    counts.refuse([1]);
    let endpoints = Endpointer::builder(watch, counts.factory()).seed(3).build();
    script.lists([1, 2]);
    ready(&endpoints, &[2]).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let dials = counts.made() - 1;
    assert!((120..=600).contains(&dials), "{dials} dials in 600 s, with pauses of up to 5 s");
    counts.refuse([]);
    ready(&endpoints, &[1, 2]).await;
    assert_eq!(counts.made() - 1, dials + 1);
}

/// An endpoint that panics when it is dropped, as one that owns a Tokio runtime does in a task, ends nothing but itself.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_panics_in_its_end_ends_alone() {
    struct Fragile(Lifeline);
    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("by the test");
        }
    }
    struct Make;
    impl Factory<Fragile> for Make {
        async fn make(&self, _: Arc<Instance>, lifeline: Lifeline) -> Result<Fragile, BoxError> {
            Ok(Fragile(lifeline))
        }
    }
    let (script, _registry, watch) = Script::open();
    let endpoints = Endpointer::new(watch, Make);
    let listed = async |ports: &[u16]| {
        script.lists(ports.iter().copied());
        let set = endpoints.wait_for(|set| {
            set.slots().iter().map(|slot| slot.instance().address().port()).eq(ports.iter().copied())
        });
        within(Duration::from_secs(10), "as listed", set).await
    };
    listed(&[1, 2]).await;
    listed(&[2]).await;
    // Its connection closes, and its instance leaves when it has just been registered with other contents.
    let lifeline = Balancer::new(endpoints.clone(), RoundRobin::default()).pick().unwrap().0.clone();
    lifeline.cut();
    listed(&[2, 3]).await;
    script.says(Ok(Update::Full(vec![book(2), book(3).with_weight(2)])));
    listed(&[2]).await;
    script.lists([]);
    within(Duration::from_secs(10), "all gone", endpoints.wait_for(ReadySet::is_empty)).await;
    assert!(matches!(endpoints.ready_set().error(), Some(PickError::Empty { .. })));
    // And all of them at once, of which two would end the process.
    listed(&[4, 5, 6]).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    drop(endpoints);
    eventually("its task has ended", || tasks() < before).await;
}

/// Go kit 25: what is listed twice is there once, and what is gone is dropped.
#[tokio::test]
async fn duplicates_make_one_endpoint() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::new(watch, counts.factory());
    script.lists([1, 1]);
    ready(&endpoints, &[1]).await;
    script.lists([1, 1, 2]);
    ready(&endpoints, &[1, 2]).await;
    assert_eq!((counts.made(), counts.alive()), (2, 2));
    script.lists([]);
    ready(&endpoints, &[]).await;
    eventually("both dropped", || counts.alive() == 0).await;
}

/// Go kit 26: a slow factory holds nobody up: neither picks nor other endpoints; and it is bounded in time.
#[tokio::test(start_paused = true)]
async fn a_slow_factory_holds_nobody_up() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    counts.hang([1]);
    let endpoints = Endpointer::new(watch, counts.factory());
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    script.lists([1, 2]);
    ready(&endpoints, &[2]).await;
    script.lists([1, 2, 3]);
    ready(&endpoints, &[2, 3]).await;
    assert!(balancer.pick().is_ok());
    // Alone, it is an error as soon as its time is up.
    script.lists([1]);
    ready(&endpoints, &[]).await;
    assert!(balancer.pick().unwrap_err().is_not_yet());
    let error = within(Duration::from_secs(6), "an answer", balancer.ready()).await.unwrap_err();
    let set = within(
        Duration::from_secs(6),
        "an end",
        endpoints.wait_for(|set| set.error().is_some_and(|e| !e.is_not_yet())),
    )
    .await;
    assert!(error.is_not_yet() || matches!(error, PickError::Unreachable { .. }));
    assert!(
        set.error().unwrap().chain().contains("no connection within 5s"),
        "{}",
        set.error().unwrap().chain()
    );
}

/// Go kit 27, 33: handles that nobody uses hold nothing up, and many at once do not hurt each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_busy_handles_live_beside_each_other() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::new(watch, counts.factory());
    let idle: Vec<_> = (0..100).map(|_| Balancer::new(endpoints.clone(), Random::default())).collect();
    script.lists([1, 2, 3]);
    ready(&endpoints, &[1, 2, 3]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for balancer in &idle[..8] {
        let mut balancer = balancer.clone();
        tasks.spawn(async move {
            for n in 0..5_000 {
                balancer.pick().expect("one is always there");
                if n % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    for round in 0..100u16 {
        script.lists([1, 2 + round % 3, 10 + round]);
        ready(&endpoints, &[1, 2 + round % 3, 10 + round]).await;
    }
    within(Duration::from_secs(60), "the picks", async {
        while tasks.join_next().await.transpose().unwrap().is_some() {}
    })
    .await;
    eventually("removed endpoints dropped", || counts.alive() == 3).await;
    let in_flight: u32 = endpoints.ready_set().slots().iter().map(|slot| slot.stats().in_flight()).sum();
    assert_eq!(in_flight, 0);
}

/// Go kit 28: an endpoint that leaves finishes what is in flight; Rust peers 8: it leaves without any traffic,
/// whatever idle handles remember.
#[tokio::test]
async fn what_leaves_finishes_its_calls_first() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::new(watch, counts.factory());
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    script.lists([1]);
    ready(&endpoints, &[1]).await;
    let call = balancer.pick().unwrap();
    let idle = balancer.clone();
    script.lists([2]);
    ready(&endpoints, &[2]).await;
    assert_eq!((call.port, call.instance().address().port()), (1, 1));
    assert_eq!(counts.alive(), 2);
    drop(call);
    eventually("dropped with its last call", || counts.alive() == 1).await;
    drop(idle);
    assert_eq!(balancer.pick().unwrap().port, 2);
}

/// Go kit 29: one that joins in an outage has what the others have. Go kit 31: a broken endpoint is made anew
/// before anybody calls.
#[tokio::test]
async fn an_outage_is_no_reason_for_an_empty_set() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    script.lists([1, 2]);
    script.fails("registry down");
    let mut stale = watch.clone();
    within(Duration::from_secs(5), "stale", async {
        while !stale.changed().await.unwrap().freshness().is_stale() {}
    })
    .await;
    let endpoints = Endpointer::new(watch, counts.factory());
    ready(&endpoints, &[1, 2]).await;
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    let broken = balancer.pick().unwrap();
    broken.report_closed();
    let port = broken.port;
    for _ in 0..4 {
        assert_ne!(balancer.pick().unwrap().port, port, "out from that moment");
    }
    drop(broken);
    ready(&endpoints, &[1, 2]).await;
    eventually("made anew", || (counts.made(), counts.alive()) == (3, 2)).await;
}

/// Go kit 30: where nothing could be read, the error says why.
#[tokio::test(start_paused = true)]
async fn never_listed_waits_then_says_why() {
    let (script, _registry, watch) = Script::open();
    let endpoints = Endpointer::new(watch, Arc::new(Counts::default()).factory());
    let mut balancer = Balancer::new(endpoints, RoundRobin::default());
    script.fails("etcd says no");
    let begun = tokio::time::Instant::now();
    let error = balancer.ready().await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert!(error.is_not_yet());
    assert_eq!(error.source().unwrap().to_string(), "etcd says no");
    // A call with less time waits no longer than that.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    assert!(balancer.ready_for(&Call::new(), Some(deadline)).await.is_err());
    assert_eq!(begun.elapsed(), Duration::from_secs(6));
    // And one that comes early is served as soon as can be.
    let (mut waiting, begun) = (balancer.clone(), tokio::time::Instant::now());
    let (picked, ()) = tokio::join!(waiting.ready(), async { script.lists([1]) });
    assert_eq!(picked.unwrap().port, 1);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// Go kit 32: an empty list that the registry confirms is a clear error at once, and `wait_for_ready` waits.
#[tokio::test(start_paused = true)]
async fn listed_and_empty_fails_at_once() {
    let registry = memory();
    let counts = Arc::new(Counts::default());
    let endpoints = over(&counts, &registry);
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    let one = registry.register(book(1)).await.unwrap();
    ready(&endpoints, &[1]).await;
    one.deregister().await.unwrap();
    ready(&endpoints, &[]).await;
    let begun = tokio::time::Instant::now();
    let error = balancer.ready().await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(matches!(error, PickError::Empty { listed: 0, .. }), "{error}");
    let mut patient = balancer.clone().wait_for_ready(true);
    let (picked, _registration) = tokio::join!(patient.ready(), async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        registry.register(book(2)).await.unwrap()
    });
    assert_eq!(picked.unwrap().port, 2);
}

/// Go kit 34: the first picks of clones, and of clients, are spread.
#[tokio::test]
async fn clones_take_turns() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::new(watch, counts.factory());
    script.lists([1, 2, 3, 4]);
    ready(&endpoints, &[1, 2, 3, 4]).await;
    let balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    // Through however many hands a clone goes before it picks.
    for hands in 1..=5 {
        let mut picks = BTreeMap::<u16, u32>::new();
        for _ in 0..100 {
            let mut clone = balancer.clone();
            for _ in 1..hands {
                clone = clone.clone();
            }
            *picks.entry(clone.pick().unwrap().port).or_default() += 1;
        }
        assert!(picks.len() == 4 && picks.values().all(|&count| count == 25), "{hands} {picks:?}");
    }
    let mut firsts = BTreeMap::<u16, u32>::new();
    for seed in 0..400u64 {
        let mut client = Balancer::with_seed(
            endpoints.clone(),
            RoundRobin::default(),
            fastrand::Rng::with_seed(seed).u64(..),
        );
        *firsts.entry(client.pick().unwrap().port).or_default() += 1;
    }
    assert!(firsts.len() == 4 && firsts.values().all(|count| (60..140).contains(count)), "{firsts:?}");
}

/// Rust peers 5: ten thousand endpoints, and one change among them makes one endpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_endpoints() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::new(watch, counts.factory());
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    script.lists(1..=10_000);
    within(Duration::from_secs(30), "all", endpoints.wait_for(|set| set.len() == 10_000)).await;
    script.says(Ok(Update::Delta { put: vec![book(10_001)], gone: vec![] }));
    within(Duration::from_secs(5), "one more", endpoints.wait_for(|set| set.len() == 10_001)).await;
    assert_eq!(counts.made(), 10_001);
    assert!(balancer.pick().is_ok());
}

/// Rust peers 9: an index of one set is never used on another. Every pick is of the set of that moment or of
/// the one before, and never of an endpoint that has been dropped.
#[tokio::test]
async fn a_pick_never_mixes_two_sets() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::new(watch, counts.factory());
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    for round in 1..200u16 {
        let listed: Vec<u16> = (1..=round % 7 + 1).map(|n| round * 10 + n).collect();
        script.lists(listed.clone());
        ready(&endpoints, &listed).await;
        for _ in 0..10 {
            let picked = balancer.pick().unwrap();
            assert!(listed.contains(&picked.port));
            assert_eq!(picked.port, picked.instance().address().port());
        }
    }
}

/// Rust peers 17, 21: when the registry loses all, what it held is used, and only as long as nothing else is
/// there.
#[tokio::test]
async fn held_instances_are_used_when_no_other_is_ready() {
    let (script, _registry, watch) = Script::with_grace(Duration::from_secs(60));
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::new(watch.clone(), counts.factory());
    script.lists([1, 2, 3, 4]);
    ready(&endpoints, &[1, 2, 3, 4]).await;
    script.lists([]);
    eventually("held", || watch.snapshot().iter().all(callsign_core::Listed::is_held)).await;
    ready(&endpoints, &[1, 2, 3, 4]).await;
    assert_eq!((counts.made(), counts.alive()), (4, 4));
    script.lists([5]);
    ready(&endpoints, &[5]).await;
    assert_eq!(counts.alive(), 5, "the held keep their connections");
    script.lists([3, 5]);
    ready(&endpoints, &[3, 5]).await;
    assert_eq!(counts.made(), 5);
}

/// A closed registry takes nothing away; it is named when nothing is left.
#[tokio::test]
async fn a_closed_registry_leaves_the_last_set() {
    let (script, registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::new(watch, counts.factory());
    script.lists([1]);
    ready(&endpoints, &[1]).await;
    registry.close(Duration::from_secs(1)).await.unwrap();
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    let picked = balancer.ready().await.unwrap();
    counts.refuse([1]);
    picked.report_closed();
    let unreachable = |set: &ReadySet<Probe>| matches!(set.error(), Some(PickError::Unreachable { .. }));
    within(Duration::from_secs(5), "it is dialled", endpoints.wait_for(unreachable)).await;
    // What the registry listed last is dialled on.
    counts.refuse([]);
    ready(&endpoints, &[1]).await;
}

/// A registry that is closed before it has listed anything leaves nobody to wait for.
#[tokio::test]
async fn closed_before_the_first_list_says_so() {
    let (_script, registry, watch) = Script::open();
    let endpoints = Endpointer::new(watch, Arc::new(Counts::default()).factory());
    registry.close(Duration::from_secs(1)).await.unwrap();
    let closed = |set: &ReadySet<Probe>| matches!(set.error(), Some(PickError::Closed { .. }));
    within(Duration::from_secs(5), "closed", endpoints.wait_for(closed)).await;
}

/// A factory that panics is a factory that failed.
#[tokio::test]
async fn a_panicking_factory_is_one_that_failed() {
    let (script, _registry, watch) = Script::open();
    let endpoints = Endpointer::new(watch, |instance: Arc<callsign_core::Instance>| async move {
        assert_ne!(instance.address().port(), 1, "on purpose");
        Ok::<_, std::io::Error>(instance.address().port())
    });
    script.lists([1, 2]);
    let set = within(Duration::from_secs(5), "2", endpoints.wait_for(|set| set.len() == 1)).await;
    assert_eq!(set.slots()[0].instance().address().port(), 2);
    script.lists([1]);
    let unreachable = |set: &ReadySet<u16>| matches!(set.error(), Some(PickError::Unreachable { .. }));
    let set = within(Duration::from_secs(5), "its error", endpoints.wait_for(unreachable)).await;
    assert!(set.error().unwrap().chain().contains("panicked"));
}

/// Rust peers 10: 200 endpoints that come, go, fail and break at random. Nothing that is gone is picked, and in
/// the end all is as it is listed, with nothing left over.
#[tokio::test(start_paused = true)]
async fn a_soak_of_200_endpoints() {
    let mut random = fastrand::Rng::with_seed(20);
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::builder(watch.clone(), counts.factory()).seed(20).build();
    let mut balancer = Balancer::with_seed(endpoints.clone(), Random::default(), 20);
    let mut calls = Vec::new();
    for _ in 0..500 {
        let share = random.f64();
        let mut some = |share: f64| (1..=200u16).filter(|_| random.f64() < share).collect::<Vec<_>>();
        let (listed, refused) = (some(share), some(0.2));
        counts.refuse(refused);
        script.lists(listed.iter().copied());
        // The clock goes on only when all is done that can be done.
        tokio::time::sleep(Duration::from_millis(random.u64(1..200))).await;
        let known: Vec<_> = watch.snapshot().iter().map(|listed| listed.address().port()).collect();
        assert_eq!(known.len(), listed.len());
        for _ in 0..20 {
            let Ok(picked) = balancer.pick() else { continue };
            assert!(listed.contains(&picked.port), "{} is gone", picked.port);
            match random.u8(..) {
                0..=30 => picked.report_closed(),
                31..=90 => calls.push(picked),
                _ => {}
            }
        }
        calls.retain(|_| random.bool());
    }
    calls.clear();
    counts.refuse([]);
    script.lists(1..=200);
    let all: Vec<_> = (1..=200).collect();
    within(Duration::from_secs(10), "all", endpoints.wait_for(|set| ports(set) == all)).await;
    assert_eq!(counts.alive(), 200);
    assert!(endpoints.ready_set().slots().iter().all(|slot| slot.stats().in_flight() == 0));
}

/// A policy of somebody else's that panics over a set costs its own balancer that set, and nobody else.
#[tokio::test]
async fn a_panicking_policy_ends_nothing() {
    #[derive(Debug, Clone)]
    struct AfraidOfThree;
    impl callsign_lb::Policy for AfraidOfThree {
        type Table = ();
        type Local = ();
        fn build(&self, members: &callsign_lb::Members<'_, ()>) {
            assert_ne!(members.len(), 3, "on purpose");
        }
        fn local(&self, _: u64) {}
        fn pick(&self, (): &(), (): &mut (), choice: &callsign_lb::Choice<'_>) -> Option<usize> {
            (0..choice.len()).find(|&index| choice.allows(index))
        }
    }
    let (script, _registry, watch) = Script::open();
    let endpoints = Endpointer::new(watch, Arc::new(Counts::default()).factory());
    let mut afraid = Balancer::new(endpoints.clone(), AfraidOfThree);
    let mut calm = Balancer::new(endpoints.clone(), RoundRobin::default());
    for listed in [vec![1, 2], vec![1, 2, 3], vec![4]] {
        script.lists(listed.iter().copied());
        ready(&endpoints, &listed).await;
        assert!(listed.contains(&calm.pick().unwrap().port));
    }
    assert_eq!(afraid.pick().unwrap().port, 4);
}

/// Nor does a filter.
#[tokio::test]
async fn a_panicking_filter_ends_nothing() {
    let (script, _registry, watch) = Script::open();
    let afraid = |instance: &callsign_core::Instance| {
        assert_ne!(instance.address().port(), 3, "on purpose");
        true
    };
    let endpoints = Endpointer::builder(watch, Arc::new(Counts::default()).factory()).filter(afraid).build();
    script.lists([1, 3]);
    ready(&endpoints, &[1]).await;
    script.lists([2, 3]);
    ready(&endpoints, &[2]).await;
}

/// What a policy has learnt is there for the table of the next set.
#[tokio::test]
async fn a_policy_has_its_table_before() {
    #[derive(Debug, Clone)]
    struct Generations;
    impl callsign_lb::Policy for Generations {
        type Table = usize;
        type Local = ();
        fn build(&self, members: &callsign_lb::Members<'_, usize>) -> usize {
            members.before().map_or(0, |before| before + members.len())
        }
        fn local(&self, _: u64) {}
        fn pick(&self, table: &usize, (): &mut (), choice: &callsign_lb::Choice<'_>) -> Option<usize> {
            // So that the test sees what there is.
            choice.len().checked_sub(1)?.checked_sub(table % choice.len())
        }
    }
    let (script, _registry, watch) = Script::open();
    let endpoints = Endpointer::new(watch, Arc::new(Counts::default()).factory());
    script.lists([1]);
    ready(&endpoints, &[1]).await;
    let mut balancer = Balancer::new(endpoints.clone(), Generations);
    for listed in [vec![1, 2], vec![1, 2, 3]] {
        script.lists(listed.iter().copied());
        ready(&endpoints, &listed).await;
    }
    // Sets may be made in more steps than these; each adds what it has to what was before.
    assert!(balancer.pick().is_ok());
}

/// A set that never changes must not gather what dead balancers left.
#[tokio::test]
async fn balancers_come_and_go_without_a_trace() {
    let (script, _registry, watch) = Script::open();
    let counted = Arc::new(());
    #[derive(Debug, Clone)]
    struct Counted(#[allow(dead_code, reason = "held to be counted")] Arc<()>);
    impl callsign_lb::Policy for Counted {
        type Table = ();
        type Local = ();
        fn build(&self, _: &callsign_lb::Members<'_, ()>) {}
        fn local(&self, _: u64) {}
        fn pick(&self, (): &(), (): &mut (), choice: &callsign_lb::Choice<'_>) -> Option<usize> {
            choice.len().checked_sub(1)
        }
    }
    let endpoints = Endpointer::new(watch, Arc::new(Counts::default()).factory());
    script.lists([1]);
    ready(&endpoints, &[1]).await;
    for _ in 0..100 {
        assert!(Balancer::new(endpoints.clone(), Counted(Arc::clone(&counted))).pick().is_ok());
    }
    assert!(Arc::strong_count(&counted) <= 2, "{}", Arc::strong_count(&counted));
}

/// Whoever waits for an endpoint when the runtime of the endpointer ends is told.
#[test]
fn the_end_of_the_runtime_is_told() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (theirs, ours) = (runtime(), runtime());
    let (_script, registry, endpoints) = theirs.block_on(async {
        let (script, registry, watch) = Script::open();
        (script, registry, Endpointer::new(watch, Arc::new(Counts::default()).factory()))
    });
    let mut balancer = Balancer::new(endpoints, RoundRobin::default()).wait_for_ready(true);
    drop(theirs);
    let error = ours.block_on(within(Duration::from_secs(5), "the end", balancer.ready())).unwrap_err();
    assert!(matches!(error, callsign_lb::PickError::Closed { .. }), "{error:?}");
    drop(registry);
}
