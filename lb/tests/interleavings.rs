//! The statistics of an instance and its gate under every interleaving of the threads that share them. The modules are the
//! product's own, with loom's atomics for the standard library's.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "modules of the product, used in part")]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
}
#[path = "../src/clock.rs"]
mod clock;
#[path = "../src/ewma.rs"]
mod ewma;
#[path = "../src/gate.rs"]
mod gate;
#[path = "../src/stats.rs"]
mod stats;

use std::time::Duration;

use clock::Tick;
use ewma::Ewma;
use gate::{Gate, Opening, Pass};
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};
use stats::{Outcome, Stats};

fn beside<T: 'static, S: 'static>(shared: &Arc<S>, act: impl FnOnce(&S) -> T + 'static) -> JoinHandle<T> {
    let shared = Arc::clone(shared);
    thread::spawn(move || act(&shared))
}

/// What begins and ends at the same time is counted, each outcome once, and nothing is in flight in the end; also when all
/// is forgiven meanwhile.
#[test]
fn calls_that_end_at_the_same_time_are_counted_once() {
    for given_up in [false, true] {
        loom::model(move || {
            let stats = Arc::new(Stats::default());
            stats.count();
            let other = beside(&stats, move |stats| {
                stats.begin();
                stats.end((!given_up).then_some(Outcome::Failure));
            });
            stats.begin();
            stats.end(Some(Outcome::Success));
            other.join().unwrap();
            let failed = u32::from(!given_up);
            assert_eq!((stats.in_flight(), stats.outcomes()), (0, (failed, 1 + failed)));
            let tally = stats.take_tally();
            assert_eq!((tally.succeeded, tally.failed), (1, failed.into()));
        });
    }
    loom::model(|| {
        let stats = Arc::new(Stats::default());
        stats.begin();
        let ends = beside(&stats, |stats| stats.end(Some(Outcome::Failure)));
        stats.judge(Outcome::Success);
        stats.forgive();
        ends.join().unwrap();
        assert_eq!(stats.in_flight(), 0);
        assert!([(0, 0), (1, 1)].contains(&stats.outcomes()));
    });
}

/// The tally of an interval and that of the next have each call once between them.
#[test]
fn a_call_is_in_one_tally() {
    loom::model(|| {
        let stats = Arc::new(Stats::default());
        stats.count();
        let calls = beside(&stats, |stats| {
            stats.judge(Outcome::Success);
            stats.judge(Outcome::Failure);
        });
        let first = stats.take_tally();
        calls.join().unwrap();
        let second = stats.take_tally();
        assert_eq!((first.succeeded + second.succeeded, first.failed + second.failed), (1, 1));
        assert!(first.failed == 0 || first.succeeded == 1);
    });
}

/// The average is always one that some order of the calls makes, or lacks one of two that ended at the same moment.
#[test]
fn an_average_is_never_made_up_of_halves() {
    loom::model(|| {
        let (stats, rule) = (Arc::new(Stats::default()), Ewma::default());
        let (now, later) = (Tick::at(Duration::from_secs(1)), Tick::at(Duration::from_secs(2)));
        let measures = |millis: u64, at: Tick| {
            move |stats: &Stats| {
                stats.measure(&rule, at, Duration::from_millis(millis), Outcome::Success, None);
            }
        };
        let slow = beside(&stats, measures(100, now));
        let quick = beside(&stats, measures(10, later));
        slow.join().unwrap();
        quick.join().unwrap();
        let millis = stats.latency(&rule, later).unwrap().as_secs_f32() * 1000.0;
        // 100 and then 10, a second later; 10 and then 100; one of both alone, aged where it is the older one.
        let possible = [rule.after(100.0, 10.0, 1.0), rule.aged(19.0, 1.0), rule.aged(100.0, 1.0), 10.0];
        assert!(possible.iter().any(|possible| (millis - possible).abs() < 0.01), "{millis} {possible:?}");
    });
}

/// An endpoint is of no more use from the moment that somebody says so, and one of those who do tells the builder.
#[test]
fn a_cut_is_told_once_and_never_taken_back() {
    loom::model(|| {
        let stats = Arc::new(Stats::default());
        let other = beside(&stats, |stats| stats.cut(7));
        let late = beside(&stats, |stats| stats.cut(6));
        let news = stats.cut(7);
        assert!(stats.is_cut(7) && stats.is_cut(6) && !stats.is_cut(8));
        assert!(news ^ other.join().unwrap());
        late.join().unwrap();
        assert!(stats.is_cut(7) && !stats.is_cut(8));
    });
}

/// Of the calls that come at a gate that is open for one, one gets through.
#[test]
fn a_gate_that_is_open_for_one_lets_one_through() {
    loom::model(|| {
        let gate = Arc::new(Gate::default());
        gate.set(Opening::Probe);
        let others = [beside(&gate, Gate::enter), beside(&gate, Gate::enter)];
        let mine = gate.enter();
        let passes = others.into_iter().map(|other| other.join().unwrap()).chain([mine]);
        assert_eq!(passes.filter(|pass| *pass == Some(Pass::Probe)).count(), 1);
        assert_eq!(gate.opening(), Opening::Probing);
    });
}

/// A probe that is given up leaves the gate open for another one, one that ends is seen, and whoever lets all in meanwhile
/// is not overruled.
#[test]
fn a_probe_ends_once_and_overrules_nobody() {
    loom::model(|| {
        let gate = Arc::new(Gate::default());
        gate.set(Opening::Probe);
        let probe = |outcome: Option<Outcome>| {
            move |gate: &Gate| {
                let pass = gate.enter();
                if pass == Some(Pass::Probe) {
                    gate.probed(outcome);
                }
                pass.is_some()
            }
        };
        let given_up = beside(&gate, probe(None));
        let failed = probe(Some(Outcome::Failure))(&gate);
        let given_up = given_up.join().unwrap();
        assert!(failed || given_up);
        assert_eq!(gate.opening(), if failed { Opening::Failed } else { Opening::Probe });
    });
    loom::model(|| {
        let gate = Arc::new(Gate::default());
        gate.set(Opening::Probe);
        assert_eq!(gate.enter(), Some(Pass::Probe));
        let all_in = beside(&gate, |gate| gate.set(Opening::Open));
        gate.probed(Some(Outcome::Failure));
        all_in.join().unwrap();
        assert_eq!((gate.opening(), gate.enter()), (Opening::Open, Some(Pass::Free)));
    });
}
