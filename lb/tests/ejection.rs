//! Instances that fail are left out for a while. `Rust peers N` are the traps of PEERS.md, by their numbers.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use callsign_lb::{AttemptError, Balancer, Ejection, Endpointer, Outcome, Picked, Retry, RoundRobin};
use support::{Counts, Probe, Script, io_error, within};

/// One of four fails every call: after five of them it gets one call in each time out, and all when it is well again.
#[tokio::test(start_paused = true)]
async fn one_that_fails_is_left_out_probed_and_let_in_again() {
    let (script, _registry, watch) = Script::open();
    let factory = Arc::new(Counts::default()).factory();
    let endpoints = Endpointer::builder(watch, factory).ejection(Ejection::default()).seed(1).build();
    script.lists(1..=4);
    endpoints.wait_for(|set| set.len() == 4).await;
    let retry = Retry::new(Balancer::new(endpoints.clone(), RoundRobin::default())).max(1);
    let (well, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    let call = |probe: Picked<Probe>| {
        let fails = probe.port == 2 && !well.load(Ordering::SeqCst);
        failed.fetch_add(u64::from(fails), Ordering::SeqCst);
        async move { if fails { Err(io_error(io::ErrorKind::ConnectionReset)) } else { Ok(probe.port) } }
    };
    // 100 calls a second.
    let calls = async |seconds: u64| {
        for _ in 0..seconds * 100 {
            let _: Result<_, _> = retry.call(call).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        failed.load(Ordering::SeqCst)
    };
    assert!((5..=7).contains(&calls(4).await), "{failed:?}");
    assert_eq!(endpoints.ready_set().len(), 3);
    let before = failed.load(Ordering::SeqCst);
    // Out for 5 s, 10 s, 20 s: probed twice or three times in 31 s.
    let probes = calls(31).await - before;
    assert!((2..=3).contains(&probes), "{probes}");
    well.store(true, Ordering::SeqCst);
    calls(45).await;
    let counts = (0..400).map(|_| async { retry.call(call).await.unwrap_or(0) });
    let mut second = 0;
    for count in counts {
        second += u64::from(count.await == 2);
    }
    assert_eq!((second, endpoints.ready_set().len()), (100, 4));
}

/// The one call that is let through may be a stream that is open for hours: its instance is back when it has answered, and
/// has not broken off in the next second.
#[tokio::test(start_paused = true)]
async fn a_stream_that_goes_on_is_as_good_as_an_answer() {
    let (script, _registry, watch) = Script::open();
    let factory = Arc::new(Counts::default()).factory();
    let endpoints = Endpointer::builder(watch, factory).ejection(Ejection::default()).seed(1).build();
    script.lists([1, 2]);
    endpoints.wait_for(|set| set.len() == 2).await;
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    for _ in 0..20 {
        let picked = balancer.pick().unwrap();
        picked.report(if picked.port == 1 { Outcome::Failure } else { Outcome::Success });
    }
    let mut probe = async || {
        endpoints.wait_for(|set| set.len() == 1).await;
        endpoints.wait_for(|set| set.len() == 2).await;
        [balancer.pick().unwrap(), balancer.pick().unwrap()]
            .into_iter()
            .find(|picked| picked.port == 1)
            .unwrap()
    };
    let mut other = Balancer::new(endpoints.clone(), RoundRobin::default());
    let mut called = || (0..100).filter(|_| other.pick().unwrap().port == 1).count();
    // One that breaks off has failed.
    let broken = probe().await;
    broken.answered();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(called(), 0);
    broken.report(Outcome::Failure);
    drop(broken);
    let stream = probe().await;
    // As long as nothing has come it is not known.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(called(), 0);
    stream.answered();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(called(), 0);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(called(), 50);
    drop(stream);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(called(), 50);
}

/// While the one call is under way the others share out what their instance does not get: not the next in line has it all,
/// where each call is a handle of its own.
#[tokio::test(start_paused = true)]
async fn what_one_that_is_probed_does_not_get_is_shared_out() {
    let (script, _registry, watch) = Script::open();
    let factory = Arc::new(Counts::default()).factory();
    let endpoints = Endpointer::builder(watch, factory).ejection(Ejection::default()).seed(1).build();
    script.lists(1..=4);
    endpoints.wait_for(|set| set.len() == 4).await;
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    for _ in 0..40 {
        let picked = balancer.pick().unwrap();
        picked.report(if picked.port == 2 { Outcome::Failure } else { Outcome::Success });
    }
    endpoints.wait_for(|set| set.len() == 3).await;
    endpoints.wait_for(|set| set.len() == 4).await;
    let _probe = (0..4).map(|_| balancer.pick().unwrap()).find(|picked| picked.port == 2).unwrap();
    let mut counts = [0; 5];
    for _ in 0..4_000 {
        counts[usize::from(balancer.clone().pick().unwrap().port)] += 1;
    }
    let even = [1, 3, 4].into_iter().all(|port| (1_230..=1_430).contains(&counts[port]));
    assert!(even && counts[2] == 0, "{counts:?}");
}

/// Whoever means for ever says the longest time there is.
#[tokio::test(start_paused = true)]
async fn times_without_end_end_nothing() {
    let forever = Ejection::default().time(Duration::MAX, Duration::MAX);
    let never = Ejection::outlier_detection().interval(Duration::MAX).into();
    for (rule, left) in [(forever, vec![2]), (never, vec![1, 2])] {
        let (script, _registry, watch) = Script::open();
        let counts = Arc::new(Counts::default());
        counts.refuse([3]);
        let endpoints = Endpointer::builder(watch, counts.factory())
            .ejection(rule)
            .backoff(Duration::MAX, Duration::MAX)
            .connect_timeout(Duration::MAX)
            .build();
        script.lists([1, 2, 3]);
        within(Duration::from_secs(10), "two ready", endpoints.wait_for(|set| set.len() == 2)).await;
        let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
        for _ in 0..20 {
            let picked = balancer.pick().unwrap();
            picked.report(if picked.port == 1 { Outcome::Failure } else { Outcome::Success });
        }
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let set = endpoints.ready_set();
        let ready: Vec<_> = set.slots().iter().map(|slot| slot.instance().address().port()).collect();
        assert_eq!((ready, counts.made()), (left, 3));
    }
}

/// Rust peers 17: where all fail, all are called.
#[tokio::test(start_paused = true)]
async fn where_all_fail_nobody_is_left_out() {
    let (script, _registry, watch) = Script::open();
    let factory = Arc::new(Counts::default()).factory();
    let endpoints = Endpointer::builder(watch, factory).ejection(Ejection::default()).build();
    script.lists(1..=3);
    endpoints.wait_for(|set| set.len() == 3).await;
    let retry = Retry::new(Balancer::new(endpoints.clone(), RoundRobin::default())).max(1);
    for _ in 0..300 {
        let error = retry.call(|_| async { Err::<(), _>(io_error(io::ErrorKind::ConnectionReset)) }).await;
        assert!(matches!(error.unwrap_err().into_last(), Some(AttemptError::Failed(_))));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(endpoints.ready_set().len(), 3);
}

/// A handle that has an old set does not call whoever was left out since, and the last one is always called.
#[tokio::test(start_paused = true)]
async fn it_holds_at_once_and_for_all_handles() {
    let (script, _registry, watch) = Script::open();
    let factory = Arc::new(Counts::default()).factory();
    let endpoints = Endpointer::builder(watch, factory).ejection(Ejection::default()).build();
    script.lists([1, 2]);
    endpoints.wait_for(|set| set.len() == 2).await;
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    let mut other = balancer.clone();
    for _ in 0..20 {
        let picked = balancer.pick().unwrap();
        picked.report(if picked.port == 1 { Outcome::Failure } else { Outcome::Success });
    }
    endpoints.wait_for(|set| set.len() == 1).await;
    assert!((0..10).all(|_| other.pick().unwrap().port == 2));
    for _ in 0..20 {
        other.pick().unwrap().report(Outcome::Failure);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(other.pick().unwrap().port, 2);
}

/// gRPC's rule: one of five fails every call. It is found at the end of the first interval of 10 s, and back, with nothing
/// to show for it, at the first end of one that is more than 30 s later.
#[tokio::test(start_paused = true)]
async fn outlier_detection_looks_every_ten_seconds() {
    let (script, _registry, watch) = Script::open();
    let factory = Arc::new(Counts::default()).factory();
    let endpoints = Endpointer::builder(watch, factory).ejection(Ejection::outlier_detection()).build();
    script.lists(1..=5);
    endpoints.wait_for(|set| set.len() == 5).await;
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    let begun = tokio::time::Instant::now();
    let (mut left, mut back) = (None, None);
    // 100 calls a second.
    while begun.elapsed() < Duration::from_secs(55) {
        let picked = balancer.pick().unwrap();
        picked.report(if picked.port == 3 { Outcome::Failure } else { Outcome::Success });
        drop(picked);
        tokio::time::sleep(Duration::from_millis(10)).await;
        match endpoints.ready_set().len() {
            4 if left.is_none() => left = Some(begun.elapsed().as_secs_f64()),
            5 if left.is_some() && back.is_none() => back = Some(begun.elapsed().as_secs_f64()),
            _ => {}
        }
    }
    let (left, back) = (left.unwrap(), back.unwrap());
    assert!((9.9..10.1).contains(&left) && (49.9..50.1).contains(&back), "{left} {back}");
}
