//! [`Stats`] on its own. Not a part of `stats.rs`, which `tests/interleavings.rs` takes in with other atomics.

use std::time::Duration;

use crate::clock::Tick;
use crate::ewma::Ewma;
use crate::stats::{Outcome, Stats};

const MS: Duration = Duration::from_millis(1);

fn at(millis: u32) -> Tick {
    Tick::at(MS * millis)
}

fn millis(stats: &Stats, now: Tick) -> f64 {
    stats.latency(&Ewma::default(), now).unwrap().as_secs_f64() * 1000.0
}

#[test]
fn fits_into_a_cache_line() {
    assert_eq!((size_of::<Stats>(), align_of::<Stats>()), (64, 64));
}

#[test]
fn an_average_begins_with_the_first_latency() {
    let (stats, rule) = (Stats::default(), Ewma::default());
    assert_eq!(stats.latency(&rule, at(0)), None);
    stats.measure(&rule, at(0), MS * 80, Outcome::Success, None);
    assert!((millis(&stats, at(0)) - 80.0).abs() < 0.01);
    // Then a tenth at least, and what is not renewed decays.
    stats.measure(&rule, at(0), MS * 180, Outcome::Success, None);
    assert!((millis(&stats, at(0)) - 90.0).abs() < 0.01);
    assert!((millis(&stats, at(5_000)) - 33.1).abs() < 0.1);
}

#[test]
fn a_failure_counts_as_the_whole_deadline_and_lowers_nothing() {
    let (stats, rule) = (Stats::default(), Ewma::default());
    stats.measure(&rule, at(0), MS * 10, Outcome::Success, None);
    stats.measure(&rule, at(1), MS, Outcome::Failure, None);
    assert!((millis(&stats, at(1)) - 1000.0).abs() < 0.01);
    stats.measure(&rule, at(2), MS, Outcome::Failure, Some(MS * 2_000));
    assert!((millis(&stats, at(2)) - 2000.0).abs() < 0.01);
    stats.measure(&rule, at(3), MS, Outcome::Failure, Some(MS * 100));
    assert!((millis(&stats, at(3)) - 2000.0).abs() < 0.01);
    stats.measure(&rule, at(4), MS * 3_000, Outcome::Failure, Some(MS * 100));
    assert!((millis(&stats, at(4)) - 3000.0).abs() < 0.01);
}

#[test]
fn ages_across_the_wrap_of_milliseconds_and_never_backwards() {
    let (stats, rule) = (Stats::default(), Ewma::default());
    // `Tick::at` begins at 1 ms.
    let before = at(u32::MAX - 1_001);
    stats.measure(&rule, before, MS * 100, Outcome::Success, None);
    let after = Tick::at(MS * (u32::MAX - 1_001) + MS * 5_000);
    assert!((millis(&stats, after) - 36.8).abs() < 0.1);
    assert!((millis(&stats, at(u32::MAX - 2_000)) - 100.0).abs() < 0.01);
}

#[test]
fn remembers_30_outcomes() {
    let stats = Stats::default();
    assert_eq!(stats.outcomes(), (0, 0));
    stats.judge(Outcome::Failure);
    stats.judge(Outcome::Success);
    assert_eq!(stats.outcomes(), (1, 2));
    for count in 3..=30 {
        stats.begin();
        stats.end(Some(Outcome::Success));
        assert_eq!(stats.outcomes(), (1, count));
    }
    for count in 1..=29 {
        stats.judge(Outcome::Failure);
        assert_eq!(stats.outcomes(), (count, 30));
    }
    for _ in 0..100 {
        stats.judge(Outcome::Failure);
    }
    assert_eq!(stats.outcomes(), (30, 30));
    stats.judge(Outcome::Success);
    assert_eq!(stats.outcomes(), (29, 30));
}

#[test]
fn outcomes_and_what_is_in_flight_do_not_touch() {
    let stats = Stats::default();
    for _ in 0..100 {
        stats.begin();
    }
    for _ in 0..50 {
        stats.end(Some(Outcome::Failure));
        stats.end(None);
    }
    assert_eq!((stats.in_flight(), stats.outcomes()), (0, (30, 30)));
}
