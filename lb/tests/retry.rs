//! `Retry`. `Go kit N` and `Rust peers N` are the traps of PEERS.md, by their numbers.

mod support;

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use callsign_core::Registry;
use callsign_lb::{
    AttemptError, Balancer, Budget, Decide, Endpointer, NeverSent, NeverSentOnly, PickError, Picked, Policy,
    Retry, RetryError, RoundRobin, SlowStart, WeightedRoundRobin,
};
use support::{Counts, Probe, Script, io_error};
use tokio::time::Instant;

struct Scene {
    script: Script,
    _registry: Registry,
    endpoints: Endpointer<Probe>,
}

async fn scene(listed: &[u16]) -> Scene {
    let (script, registry, watch) = Script::open();
    let endpoints = Endpointer::new(watch, Arc::new(Counts::default()).factory());
    script.lists(listed.iter().copied());
    endpoints.wait_for(|set| set.len() == listed.len()).await;
    Scene { script, _registry: registry, endpoints }
}

impl Scene {
    fn retry(&self) -> Retry<Probe, RoundRobin, NeverSentOnly> {
        Retry::new(Balancer::with_seed(self.endpoints.clone(), RoundRobin::default(), 0))
    }
}

fn any<X>(_: &AttemptError<X>) -> bool {
    true
}

async fn refused(_: Picked<Probe>) -> Result<u16, io::Error> {
    Err(io_error(io::ErrorKind::ConnectionRefused))
}

/// Go kit 35: without endpoints there is no tight loop, however many attempts are allowed.
#[tokio::test(start_paused = true)]
async fn no_endpoints_is_no_tight_loop() {
    let scene = scene(&[]).await;
    let retry = scene.retry().max(usize::MAX).timeout(Duration::from_millis(200)).when(any);
    let begun = Instant::now();
    let error = retry.call(refused).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_millis(200));
    assert!(error.is_deadline_exceeded());
    assert!((2..=60).contains(&error.attempts().len()), "{} attempts in 200 ms", error.attempts().len());
    assert!(matches!(error.into_last(), Some(AttemptError::NoEndpoint(PickError::Empty { .. }))));
    // And one that comes up meanwhile is used.
    let (answer, ()) =
        tokio::join!(retry.call(|probe| async move { Ok::<_, io::Error>(probe.port) }), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            scene.script.lists([7]);
        });
    assert_eq!(answer.unwrap(), 7);
}

/// Go kit 36: the first endpoint hangs, and the healthy one is reached within the budget.
#[tokio::test(start_paused = true)]
async fn one_that_hangs_does_not_use_up_the_budget() {
    let scene = scene(&[1, 2]).await;
    let hangs = |probe: Picked<Probe>| async move {
        if probe.port == 1 { std::future::pending().await } else { Ok::<_, io::Error>(probe.port) }
    };
    let retry = scene.retry().max(3).timeout(Duration::from_secs(3));
    let patient = retry.clone();
    let retry = retry.when(|error: &AttemptError<io::Error>| matches!(error, AttemptError::TimedOut(_)));
    for _ in 0..4 {
        let begun = Instant::now();
        assert_eq!(retry.call(hangs).await.unwrap(), 2);
        assert!(begun.elapsed() <= Duration::from_secs(1));
    }
    // By default an attempt that may have been sent is not repeated: it has all the time there is.
    let mut given_up = 0;
    for _ in 0..2 {
        if let Err(error) = patient.call(hangs).await {
            assert!(error.is_deadline_exceeded());
            assert_eq!(error.attempts().len(), 1);
            assert!(
                matches!(error.attempts()[0].error(), AttemptError::TimedOut(after) if *after >= Duration::from_secs(3))
            );
            given_up += 1;
        }
    }
    assert_eq!(given_up, 1);
    // An own limit for an attempt is kept.
    let begun = Instant::now();
    let quick = scene.retry().attempt_timeout(Duration::from_millis(10)).when(any);
    assert_eq!(quick.call(hangs).await.unwrap(), 2);
    assert!(begun.elapsed() <= Duration::from_millis(20));
}

/// Go kit 37: every attempt is kept, also when time is up, and the caller's own error is found in the chain.
#[tokio::test(start_paused = true)]
async fn every_attempt_is_kept() {
    let scene = scene(&[1, 2, 3]).await;
    let error = scene.retry().call(refused).await.unwrap_err();
    assert!(matches!(error, RetryError::Failed { .. }));
    let tried: BTreeSet<_> =
        error.attempts().iter().map(|a| a.instance().unwrap().address().port()).collect();
    assert_eq!(tried, BTreeSet::from([1, 2, 3]));
    let source = error.source().unwrap().downcast_ref::<io::Error>().expect("the caller's error");
    assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
    let last = error.attempts()[2].instance().unwrap().address();
    assert_eq!(error.to_string(), format!("the call failed, 3 attempts made, the last on {last}"));
    assert!(error.attempts()[0].to_string().ends_with(": by the test"));

    let count = AtomicU32::new(0);
    let slow_second = |_: Picked<Probe>| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if first {
                Err::<u16, _>(io_error(io::ErrorKind::ConnectionRefused))
            } else {
                std::future::pending().await
            }
        }
    };
    let error = scene.retry().timeout(Duration::from_secs(1)).call(slow_second).await.unwrap_err();
    assert!(error.is_deadline_exceeded());
    assert_eq!(error.attempts().len(), 2);
    assert!(matches!(error.attempts()[0].error(), AttemptError::Failed(_)));
    assert!(
        error.to_string().starts_with("deadline exceeded: no answer within 1s, 2 attempts made"),
        "{error}"
    );
    assert!(error.source().unwrap().to_string().starts_with("no answer within"));
}

/// Go kit 38: the one that has just failed is not tried again while another is there, also under concurrency.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_healthy_and_none_fails() {
    let scene = scene(&[1, 2]).await;
    let retry = Arc::new(scene.retry().max(2));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let retry = Arc::clone(&retry);
        tasks.spawn(async move {
            for _ in 0..100 {
                let answer = retry.call(|probe| async move {
                    tokio::task::yield_now().await;
                    if probe.port == 1 {
                        Err(io_error(io::ErrorKind::ConnectionRefused))
                    } else {
                        Ok(probe.port)
                    }
                });
                assert_eq!(answer.await.unwrap(), 2);
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

/// Go kit 39, Rust peers 20: `max` counts attempts in all; by default only what was never sent is repeated.
#[tokio::test(start_paused = true)]
async fn only_what_was_never_sent_is_repeated() {
    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(#[source] Box<dyn std::error::Error + Send + Sync>);
    let scene = scene(&[1, 2, 3, 4]).await;
    let reset = || Box::new(io_error(io::ErrorKind::ConnectionReset));
    let attempts = async |retry: Retry<Probe, RoundRobin>, error: &dyn Fn() -> Wrapped| {
        retry.call(|_| async { Err::<u16, _>(error()) }).await.unwrap_err().attempts().len()
    };
    assert_eq!(attempts(scene.retry(), &|| Wrapped(reset())).await, 1);
    assert_eq!(attempts(scene.retry(), &|| Wrapped(Box::new(NeverSent(reset())))).await, 3);
    let refused = || Wrapped(Box::new(io_error(io::ErrorKind::ConnectionRefused)));
    assert_eq!(attempts(scene.retry().max(2), &refused).await, 2);
    assert_eq!(attempts(scene.retry().max(1), &refused).await, 1);
    assert_eq!(attempts(scene.retry().max(0), &refused).await, 1);
    let by_choice =
        scene.retry().max(4).when(|error: &AttemptError<Wrapped>| matches!(error, AttemptError::Failed(_)));
    let error = by_choice.call(|_| async { Err::<u16, _>(Wrapped(reset())) }).await.unwrap_err();
    assert_eq!(error.attempts().len(), 4);
}

/// With one instance only, it is tried again, after a pause.
#[tokio::test(start_paused = true)]
async fn the_only_instance_is_tried_again_after_a_pause() {
    let scene = scene(&[1]).await;
    let begun = Instant::now();
    let error = scene.retry().max(20).call(refused).await.unwrap_err();
    assert_eq!(error.attempts().len(), 20);
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// Dropping a call that is under way ends it, and its endpoint is free.
#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_over() {
    let scene = scene(&[1]).await;
    let retry = scene.retry();
    let call = retry.call(|probe| async move {
        let _probe = probe;
        std::future::pending::<Result<u16, io::Error>>().await
    });
    assert!(tokio::time::timeout(Duration::from_millis(10), call).await.is_err());
    assert_eq!(scene.endpoints.ready_set().slots()[0].stats().in_flight(), 0);
}

/// Calls through one shared `Retry` take turns.
#[tokio::test(start_paused = true)]
async fn calls_take_turns() {
    let scene = scene(&[1, 2, 3, 4]).await;
    let retry = scene.retry();
    let mut counts = [0; 5];
    for _ in 0..100 {
        let port = retry.call(|probe| async move { Ok::<_, io::Error>(probe.port) }).await.unwrap();
        counts[usize::from(port)] += 1;
    }
    assert_eq!(counts, [0, 25, 25, 25, 25]);
}

/// What one that is down cannot take is shared out among all others: the next in line must not have it all.
#[tokio::test(start_paused = true)]
async fn repeats_are_shared_out() {
    async fn counts(scene: &Scene, policy: impl Policy) -> [u32; 5] {
        let retry = Retry::new(Balancer::with_seed(scene.endpoints.clone(), policy, 0));
        let mut counts = [0; 5];
        for _ in 0..4_000 {
            let call = |probe: Picked<Probe>| async move {
                if probe.port == 2 { refused(probe).await } else { Ok(probe.port) }
            };
            counts[usize::from(retry.call(call).await.unwrap())] += 1;
        }
        counts
    }
    let scene = scene(&[1, 2, 3, 4]).await;
    for counts in [
        counts(&scene, RoundRobin::default()).await,
        counts(&scene, WeightedRoundRobin::default()).await,
        counts(&scene, SlowStart::new(RoundRobin::default(), Duration::from_secs(30))).await,
    ] {
        // A thousand each, and a third of the thousand calls that met the second first.
        let even = [1, 3, 4].into_iter().all(|port| (1_230..=1_430).contains(&counts[port]));
        assert!(even && counts[2] == 0, "{counts:?}");
    }
}

/// A service that is registered nowhere will not come up within a pause of milliseconds: it is told at once.
#[tokio::test(start_paused = true)]
async fn nobody_registered_is_told_at_once() {
    let scene = scene(&[]).await;
    let begun = Instant::now();
    let error = scene.retry().max(10).call(refused).await.unwrap_err();
    assert_eq!((error.attempts().len(), begun.elapsed()), (1, Duration::ZERO));
    assert_eq!(error.chain(), "the call failed, 1 attempt made: no instance of book is registered");
}

/// Whoever looks at the error of a call that may have been sent once must not take it for one that never was.
#[tokio::test(start_paused = true)]
async fn one_attempt_that_may_have_been_sent_counts_for_all() {
    let scene = scene(&[1, 2]).await;
    let count = AtomicU32::new(0);
    let reset_then_refused = |_: Picked<Probe>| {
        let first = count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let kind = if first { io::ErrorKind::ConnectionReset } else { io::ErrorKind::ConnectionRefused };
        async move { Err::<u16, _>(io_error(kind)) }
    };
    let error = scene.retry().max(2).when(any).call(reset_then_refused).await.unwrap_err();
    assert_eq!(error.attempts().len(), 2);
    assert!(error.attempts()[1].error().is_never_sent());
    assert!(!callsign_lb::is_never_sent(&error), "{}", error.chain());
    let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::ConnectionReset);
}

/// A request is sent by being polled, so none is once the time is up.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_the_deadline() {
    let scene = scene(&[1]).await;
    let (timeout, begun) = (Duration::from_millis(300), Instant::now());
    let sent = std::sync::Mutex::new(Vec::new());
    let retry = scene.retry().max(usize::MAX).timeout(timeout);
    let error = retry
        .call(|_| {
            sent.lock().unwrap().push(begun.elapsed());
            async { Err::<u16, _>(io_error(io::ErrorKind::ConnectionRefused)) }
        })
        .await
        .unwrap_err();
    let sent = sent.into_inner().unwrap();
    assert!(error.is_deadline_exceeded() && sent.len() > 1);
    assert!(sent.iter().all(|at| *at < timeout), "{sent:?}");
    assert_eq!(sent.len(), error.attempts().len());
    assert!(error.attempts().iter().all(|attempt| matches!(attempt.error(), AttemptError::Failed(_))));
}

/// Rust peers 13: each attempt has a request made for it, whatever its body is; and where all calls fail, they are not
/// made many times over: of a thousand a fifth is made again, and ten a second.
#[tokio::test(start_paused = true)]
async fn where_all_fail_few_calls_are_made_again() {
    let scene = scene(&[1, 2, 3]).await;
    let sent = AtomicU32::new(0);
    let reset = |probe: Picked<Probe>| {
        // No `Clone`, as the body of a stream.
        let body = Box::new(probe);
        sent.fetch_add(1, Ordering::Relaxed);
        async move {
            let _body = body;
            Err::<u16, _>(io_error(io::ErrorKind::ConnectionReset))
        }
    };
    let budget = Budget::default().per_second(0);
    let retry = scene.retry().when(any).budget(budget.clone());
    let mut over = 0;
    for _ in 0..1000 {
        over += usize::from(matches!(retry.clone().call(reset).await, Err(RetryError::OverBudget { .. })));
    }
    let made = sent.load(Ordering::Relaxed);
    assert!((1199..=1200).contains(&made) && over > 800, "{made} made, {over} over budget");
    let error = retry.call(reset).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the call failed, and the budget of retries is used up, 1 attempt made")
    );

    // What no server has seen takes nothing, and who has no budget is not held back.
    for _ in 0..100 {
        assert_eq!(scene.retry().budget(budget.clone()).call(refused).await.unwrap_err().attempts().len(), 3);
        let free = scene.retry().when(any).without_budget();
        assert_eq!(free.call(reset).await.unwrap_err().attempts().len(), 3);
    }
    // By default there is enough for ten seconds, and none for a storm.
    let (retry, before) = (scene.retry().when(any), sent.load(Ordering::Relaxed));
    for _ in 0..100 {
        assert!(retry.call(reset).await.is_err());
    }
    let made = sent.load(Ordering::Relaxed) - before;
    assert!((219..=221).contains(&made), "{made}");
}

/// Whoever knows more of his errors says it by a `Decide`: what may be repeated, what it costs, and whose fault it is.
#[tokio::test(start_paused = true)]
async fn a_decision_of_ones_own() {
    struct Busy;
    impl Decide<io::Error> for Busy {
        fn repeats(&self, error: &AttemptError<io::Error>) -> bool {
            matches!(error, AttemptError::Failed(error) if error.kind() == io::ErrorKind::WouldBlock)
        }
        fn costs(&self, _: &AttemptError<io::Error>) -> bool {
            false
        }
    }
    let scene = scene(&[1, 2]).await;
    let none = Budget::default().per_second(0).share(0.0);
    let retry = scene.retry().max(5).decide(Busy).budget(none.clone());
    let busy = |_: Picked<Probe>| async { Err::<u16, _>(io_error(io::ErrorKind::WouldBlock)) };
    assert_eq!(retry.call(busy).await.unwrap_err().attempts().len(), 5);
    assert_eq!(retry.call(refused).await.unwrap_err().attempts().len(), 1);
    let paid = scene.retry().max(5).when(any).budget(none);
    assert_eq!(paid.call(busy).await.unwrap_err().attempts().len(), 1);
}
