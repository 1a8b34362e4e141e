use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::{Instant, advance, sleep, timeout};

use crate::driver::script::{Call, Reply, World, instance};
use crate::*;

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(6);

mod leaving;
mod renewals;
mod updates;

/// A registry that works, but for what `broken` says of a time and a call.
fn world(broken: impl Fn(Duration, Call) -> Option<Reply> + Send + 'static) -> Arc<World> {
    let start = Instant::now();
    World::new(Some(TTL), move |call| broken(start.elapsed(), call).unwrap_or(Reply::Ok))
}

fn claims(world: &World) -> (usize, usize) {
    (world.count(Call::Take), world.count(Call::Again))
}

fn times(world: &World, wanted: impl Fn(Call) -> bool) -> Vec<Duration> {
    world.log().into_iter().filter(|(_, call)| wanted(*call)).map(|(at, _)| at).collect()
}

fn is_write(call: Call) -> bool {
    matches!(call, Call::Write(..))
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
