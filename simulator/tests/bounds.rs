//! What is promised of the policies where servers are slow, fail and stop, in three simulations of a minute each.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper of tests")]

use std::time::Duration;

use callsign_lb::{Ejection, NamedPolicy};
use callsign_simulator::{Contender, Report, Scenario, run};

const MS: Duration = Duration::from_millis(1);
/// Any will do. Of twenty others none came near a bound.
const SEED: u64 = 7;

fn by(policy: &str) -> Contender {
    Contender::new(policy.parse::<NamedPolicy>().unwrap())
}

/// Those that heed latency and failures, with ejection.
fn heeding(clients: usize) -> Report {
    let contender = by("p3c_ewma").with_ejection(Ejection::default());
    let report = run(&Scenario::troubled(clients), &contender, SEED).unwrap();
    // 4,800 a second.
    assert!((270_000..290_000).contains(&report.calls), "{}", report.calls);
    assert!(report.while_failing > 90_000 && report.to_failing > 0, "{}", report.to_failing);
    assert_eq!(report.unplaced, 0);
    // A sinkhole it is not: a twentieth would be fair.
    assert!(report.failing_share() <= 0.005, "{}", report.failing_share());
    assert!(report.latency(0.99) <= 75 * MS, "{:?}", report.latency(0.99));
    assert!(report.timeout_share() <= 0.002, "{}", report.timeout_share());
    report
}

#[test]
fn a_few_clients_avoid_what_is_slow_fails_or_stops() {
    heeding(20);
}

#[test]
fn many_clients_do_too() {
    heeding(200);
}

/// The scenario is one in which it matters: turns send a server that is three times slower more than it can do.
#[test]
fn taking_turns_does_not() {
    let plain = run(&Scenario::troubled(20), &by("round_robin"), SEED).unwrap();
    assert_eq!(plain.latency(0.99), 1_000 * MS);
    assert!((0.049..0.051).contains(&plain.failing_share()), "{}", plain.failing_share());
    assert!(plain.timeout_share() > 0.1, "{}", plain.timeout_share());
    let ejecting = by("round_robin").with_ejection(Ejection::default());
    let ejecting = run(&Scenario::troubled(20), &ejecting, SEED).unwrap();
    assert!(ejecting.failing_share() <= 0.005, "{}", ejecting.failing_share());
    assert!(ejecting.timeout_share() < plain.timeout_share() / 2.0, "{}", ejecting.timeout_share());
}

/// The same numbers, the same calls.
#[test]
fn runs_are_repeatable() {
    let mut scenario = Scenario::wandering();
    scenario.lasts = Duration::from_secs(4);
    let [one, other, third] = [(1, "p2c"), (1, "p2c"), (2, "p2c")].map(|(seed, policy)| {
        let report = run(&scenario, &by(policy), seed).unwrap();
        (report.calls, report.latency(0.5), report.latency(0.99))
    });
    assert_eq!(one, other);
    assert_ne!(one, third);
}
