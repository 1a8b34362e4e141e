//! What a balancer notes of calls: their end, latency and outcome, each exactly once, however they end.

mod support;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use callsign_core::Registry;
use callsign_lb::{
    AttemptError, Balancer, Choice, Ejection, Endpointer, Ewma, Members, Outcome, P3cEwma, Policy, Retry,
    RoundRobin, Stats, Tick,
};
use support::{Counts, Probe, Script, io_error};

/// Round robin that wants latencies.
#[derive(Debug, Clone)]
struct Measured(RoundRobin);

impl Policy for Measured {
    type Table = ();
    type Local = u64;

    fn build(&self, members: &Members<'_, ()>) {
        self.0.build(members);
    }

    fn local(&self, seed: u64) -> u64 {
        self.0.local(seed)
    }

    fn ewma(&self) -> Option<Ewma> {
        Some(Ewma::default())
    }

    fn pick(&self, table: &(), local: &mut u64, choice: &Choice<'_>) -> Option<usize> {
        self.0.pick(table, local, choice)
    }
}

struct Scene {
    balancer: Balancer<Probe, Measured>,
    stats: Arc<Stats>,
    script: Script,
    _registry: Registry,
}

async fn scene() -> Scene {
    let (script, registry, watch) = Script::open();
    let endpoints = Endpointer::new(watch, Arc::new(Counts::default()).factory());
    script.lists([1]);
    let set = endpoints.wait_for(|set| set.len() == 1).await;
    let stats = Arc::clone(set.slots()[0].stats());
    Scene {
        balancer: Balancer::new(endpoints, Measured(RoundRobin::default())),
        stats,
        script,
        _registry: registry,
    }
}

impl Scene {
    fn millis(&self) -> Option<u128> {
        let latency = self.stats.latency(&Ewma::default(), Tick::now())?;
        Some((latency + Duration::from_micros(10)).as_millis())
    }
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_is_noted_once_when_it_ends() {
    let mut scene = scene().await;
    let picked = scene.balancer.pick().unwrap();
    pass(20).await;
    picked.report(Outcome::Success);
    picked.report(Outcome::Failure);
    assert_eq!((scene.stats.in_flight(), scene.stats.outcomes(), scene.millis()), (1, (0, 0), None));
    pass(20).await;
    drop(picked);
    assert_eq!((scene.stats.in_flight(), scene.stats.outcomes(), scene.millis()), (0, (0, 1), Some(40)));
}

/// A stream may be open for hours: its latency is known when its answer begins.
#[tokio::test(start_paused = true)]
async fn latency_is_the_time_to_the_answer() {
    let mut scene = scene().await;
    let picked = scene.balancer.pick().unwrap();
    pass(15).await;
    picked.answered();
    pass(3_600_000).await;
    picked.answered();
    // Dropped by its caller: no outcome, but the latency was seen.
    drop(picked);
    assert_eq!((scene.stats.in_flight(), scene.stats.outcomes(), scene.millis()), (0, (0, 0), Some(15)));
}

/// A caller that loses patience says nothing against the instance, but that it takes so long.
#[tokio::test(start_paused = true)]
async fn a_call_given_up_is_no_failure_and_no_quick_success() {
    let mut scene = scene().await;
    let picked = scene.balancer.pick().unwrap();
    pass(100).await;
    picked.report(Outcome::Success);
    drop(picked);
    drop(scene.balancer.pick().unwrap());
    assert_eq!((scene.stats.outcomes(), scene.millis()), ((0, 1), Some(100)));
    let picked = scene.balancer.pick().unwrap();
    pass(5_000).await;
    drop(picked);
    // Counted as 1 s, by the share that 5 s make.
    assert_eq!(scene.stats.outcomes(), (0, 1));
    assert!((660..680).contains(&scene.millis().unwrap()), "{:?}", scene.millis());
}

/// Who gives up because the time is up has no chance to report.
#[tokio::test(start_paused = true)]
async fn a_call_that_outlasts_what_it_was_allowed_has_failed() {
    let mut scene = scene().await;
    for (waited, failures) in [(1_000, 0), (2_000, 1)] {
        let picked = scene.balancer.pick().unwrap();
        picked.allow(Duration::from_secs(2));
        pass(waited).await;
        drop(picked);
        assert_eq!(scene.stats.outcomes(), (failures, failures));
    }
    assert_eq!(scene.millis(), Some(2_000));
    // One that failed sooner counts as long.
    let picked = scene.balancer.pick().unwrap();
    picked.allow(Duration::from_secs(3));
    picked.report(Outcome::Failure);
    drop(picked);
    assert_eq!((scene.stats.outcomes(), scene.millis()), ((2, 2), Some(3_000)));
}

#[tokio::test(start_paused = true)]
async fn retry_reports_by_itself() {
    let scene = scene().await;
    let retry = Retry::new(scene.balancer.clone()).max(1).timeout(Duration::from_secs(2));
    let answer = retry.call(|probe| async move {
        pass(10).await;
        Ok::<_, io::Error>(probe)
    });
    // What was picked came back with the answer, and is in flight until it is dropped.
    let probe = answer.await.unwrap();
    assert_eq!((scene.stats.in_flight(), scene.stats.outcomes()), (1, (0, 0)));
    pass(500).await;
    drop(probe);
    assert_eq!((scene.stats.in_flight(), scene.stats.outcomes(), scene.millis()), (0, (0, 1), Some(10)));
    retry.call(|_| async { Err::<(), _>(io_error(io::ErrorKind::NotFound)) }).await.unwrap_err();
    assert_eq!((scene.stats.outcomes(), scene.millis()), ((1, 2), Some(2_000)));
    // Whoever knows better says so first.
    let knows = retry.call(|probe| async move {
        probe.report(Outcome::Success);
        Err::<(), _>(io_error(io::ErrorKind::NotFound))
    });
    knows.await.unwrap_err();
    assert_eq!(scene.stats.outcomes(), (1, 3));
    let hangs = retry.clone().when(|_: &AttemptError<io::Error>| false);
    hangs.call(|_: callsign_lb::Picked<Probe>| std::future::pending::<io::Result<()>>()).await.unwrap_err();
    assert_eq!((scene.stats.in_flight(), scene.stats.outcomes()), (0, (2, 4)));
    // A caller that gives the whole call up.
    let given_up = tokio::time::timeout(
        Duration::from_millis(5),
        retry.call(|probe: callsign_lb::Picked<Probe>| async move {
            let _probe = probe;
            std::future::pending::<io::Result<()>>().await
        }),
    );
    given_up.await.unwrap_err();
    assert_eq!((scene.stats.in_flight(), scene.stats.outcomes()), (0, (2, 4)));
}

/// What is known of an instance outlives the sets that it is in.
#[tokio::test(start_paused = true)]
async fn statistics_survive_rebuilds() {
    let mut scene = scene().await;
    let picked = scene.balancer.pick().unwrap();
    picked.report(Outcome::Failure);
    scene.script.lists([1, 2, 3]);
    let set = scene.balancer.endpoints().wait_for(|set| set.len() == 3).await;
    assert_eq!(set.slots()[0].stats().in_flight(), 1);
    drop(picked);
    assert_eq!((set.slots()[0].stats().in_flight(), set.slots()[0].stats().outcomes()), (0, (1, 1)));
    assert!(Arc::ptr_eq(set.slots()[0].stats(), &scene.stats));
}

/// Whatever threads do at the same time, the books balance in the end.
#[test]
fn statistics_never_drift() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (script, _registry, watch) = Script::open();
        let factory = Arc::new(Counts::default()).factory();
        let endpoints = Endpointer::builder(watch, factory).ejection(Ejection::default()).build();
        script.lists(1..=3);
        let set = endpoints.wait_for(|set| set.len() == 3).await;
        let balancer = Balancer::new(endpoints, P3cEwma::default());
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..8 {
            let mut balancer = balancer.clone();
            let mut rng = fastrand::Rng::with_seed(seed);
            tasks.spawn(async move {
                let mut held = Vec::new();
                for _ in 0..5_000 {
                    let Ok(picked) = balancer.pick() else { continue };
                    match rng.u8(..4) {
                        0 => picked.report(Outcome::Success),
                        1 => picked.report(Outcome::Failure),
                        2 => picked.answered(),
                        _ => picked.allow(Duration::ZERO),
                    }
                    held.push(picked);
                    if held.len() > 20 {
                        held.swap_remove(rng.usize(..20));
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
        tasks.join_all().await;
        for slot in set.slots().iter() {
            let (failed, seen) = slot.stats().outcomes();
            assert_eq!((slot.stats().in_flight(), failed <= seen), (0, true));
        }
    });
}
