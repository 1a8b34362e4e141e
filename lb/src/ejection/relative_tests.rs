use std::time::Duration;

use super::*;
use crate::ejection::Ejection;
use crate::gate::Pass;
use crate::stats::Outcome;

struct Pool {
    ejector: Relative,
    members: Vec<(u64, Arc<Stats>)>,
    begun: Instant,
    now: Instant,
}

impl Pool {
    fn new(members: u64) -> Self {
        Self::by(Ejection::default(), members)
    }

    fn by(rule: Ejection, members: u64) -> Self {
        let begun = Instant::now();
        let ejector = Relative::new(rule.comparison(), fastrand::Rng::with_seed(1));
        let members = (0..members).map(|number| (number, Arc::default())).collect();
        Self { ejector, members, begun, now: begun }
    }

    fn calls(&self, member: usize, outcomes: &str) {
        for outcome in outcomes.chars() {
            self.members[member].1.judge(if outcome == '+' { Outcome::Success } else { Outcome::Failure });
        }
    }

    /// All others are fine.
    fn others_are_fine(&self, but: &[usize]) {
        for member in (0..self.members.len()).filter(|member| !but.contains(member)) {
            self.calls(member, &"+".repeat(30));
        }
    }

    fn judge(&mut self) -> Vec<u64> {
        self.ejector.judge(&self.members, self.now);
        self.out()
    }

    fn out(&self) -> Vec<u64> {
        self.members.iter().map(|(number, _)| *number).filter(|number| self.ejector.is_out(*number)).collect()
    }

    /// Waits for the next that comes back to be probed, and returns for how long it was out, in seconds.
    fn wait(&mut self) -> f64 {
        let until = self.ejector.next_wake().unwrap();
        let out = until - self.now;
        self.now = until;
        self.judge();
        out.as_secs_f64()
    }

    fn probe(&mut self, member: usize, outcome: Option<Outcome>) {
        let stats = &self.members[member].1;
        assert_eq!(stats.gate().enter(), Some(Pass::Probe));
        assert_eq!(stats.gate().enter(), None, "one call is let through");
        stats.gate().probed(outcome);
    }
}

#[test]
fn five_in_a_row_are_enough() {
    let mut pool = Pool::new(4);
    pool.others_are_fine(&[1]);
    pool.calls(1, &("+".repeat(25) + "----"));
    assert!(pool.judge().is_empty());
    pool.calls(1, "-");
    assert_eq!(pool.judge(), [1]);
    assert_eq!(pool.members[1].1.gate().enter(), None, "nothing is let through");
}

#[test]
fn one_that_fails_half_of_the_time_is_found_in_five_calls() {
    let mut pool = Pool::new(4);
    pool.others_are_fine(&[1]);
    pool.calls(1, "-+-+");
    assert!(pool.judge().is_empty());
    pool.calls(1, "-");
    assert_eq!(pool.judge(), [1]);
}

/// What hits all of them leaves nobody out.
#[test]
fn nobody_goes_where_all_fail() {
    let mut pool = Pool::new(4);
    for member in 0..4 {
        pool.calls(member, &"-".repeat(10 + member));
    }
    assert!(pool.judge().is_empty());
}

/// Whether a call that ended has somebody left out. It is looked at as balancers do: when it failed and its instance is
/// suspect.
fn ends(pool: &mut Pool, member: usize, failed: bool) -> bool {
    pool.calls(member, if failed { "-" } else { "+" });
    let stats = &pool.members[member].1;
    let (failures, seen) = stats.outcomes();
    failed && is_suspect(failures, seen, stats.failed_in_a_row()) && !pool.judge().is_empty()
}

/// Ten instances fail all alike: runs of 10,000 calls from the first on, of a hundred, in which somebody is left out.
#[test]
fn bad_luck_is_rarely_taken_for_a_fault() {
    let mut rng = fastrand::Rng::with_seed(2);
    for share in [0.01, 0.05, 0.1, 0.3] {
        let run = |_: &usize| {
            let mut pool = Pool::new(10);
            (0..10_000).any(|_| ends(&mut pool, rng.usize(..10), rng.f64() < share))
        };
        let unlucky = (0..100).filter(run).count();
        assert!(unlucky <= 3, "{unlucky} of 100 at {share}");
    }
}

/// One is new and fails half of its calls, the others one in a hundred: it is found in six calls, mostly.
#[test]
fn one_that_fails_every_other_call_is_found_in_ten_calls() {
    for (members, median, most) in [(3, 10, 30), (4, 8, 20), (10, 6, 14), (100, 6, 12)] {
        let mut rng = fastrand::Rng::with_seed(4);
        let run = |_| {
            let mut pool = Pool::new(members);
            for member in 1..pool.members.len() {
                for _ in 0..30 {
                    pool.calls(member, if rng.f64() < 0.01 { "-" } else { "+" });
                }
            }
            let mut calls = 1;
            while !ends(&mut pool, 0, rng.bool()) {
                calls += 1;
            }
            assert_eq!(pool.out(), [0]);
            calls
        };
        let mut calls: Vec<u32> = (0..200).map(run).collect();
        calls.sort_unstable();
        assert!(calls[100] <= median && calls[180] <= most, "{members}: {} {}", calls[100], calls[180]);
    }
}

/// Of four that are called in turn, the first time at all.
#[test]
fn one_that_fails_every_call_is_found_in_five() {
    let mut pool = Pool::new(4);
    let calls = (0..100).take_while(|call| !ends(&mut pool, call % 4, call % 4 == 3)).count();
    assert_eq!(calls, 4 * 5 - 1);
}

#[test]
fn at_most_half_go_and_never_the_last() {
    for (members, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)] {
        // One of those that go after the other, while the rest are fine.
        let mut pool = Pool::new(members);
        for member in 0..usize::try_from(members).unwrap() {
            pool.others_are_fine(&(0..=member).collect::<Vec<_>>());
            pool.calls(member, &"-".repeat(30));
            pool.judge();
        }
        assert_eq!(pool.out().len(), most, "of {members}");
    }
    let mut pool = Pool::by(Ejection::default().most(1.0).panic_threshold(0.0), 3);
    for member in 0..3 {
        pool.others_are_fine(&(0..=member).collect::<Vec<_>>());
        pool.calls(member, &"-".repeat(30));
        pool.judge();
    }
    assert_eq!(pool.out().len(), 2);
    let mut pool = Pool::by(Ejection::default().most(0.0), 3);
    pool.others_are_fine(&[0]);
    pool.calls(0, "-----");
    assert!(pool.judge().is_empty());
}

#[test]
fn a_probe_that_succeeds_brings_it_back_with_nothing_held_against_it() {
    let mut pool = Pool::new(3);
    pool.others_are_fine(&[0]);
    pool.calls(0, "-----");
    assert_eq!(pool.judge(), [0]);
    let out = pool.wait();
    assert!((4.5..=5.5).contains(&out), "{out}");
    assert!(pool.out().is_empty(), "it is in the set, for one call");
    // Its caller gave the call up: another one is let through.
    pool.probe(0, None);
    pool.probe(0, Some(Outcome::Success));
    assert_eq!(pool.members[0].1.gate().enter(), None, "until somebody has looked");
    assert!(pool.judge().is_empty());
    assert_eq!(pool.members[0].1.gate().enter(), Some(Pass::Free));
    assert_eq!(pool.members[0].1.outcomes(), (0, 0));
}

#[test]
fn each_time_is_twice_as_long_up_to_a_minute() {
    let mut pool = Pool::new(3);
    pool.others_are_fine(&[0]);
    pool.calls(0, "-----");
    pool.judge();
    for time in [5.0, 10.0, 20.0, 40.0, 60.0, 60.0] {
        let out = pool.wait();
        assert!((time * 0.9..=time * 1.1).contains(&out), "{out} {time}");
        pool.probe(0, Some(Outcome::Failure));
        assert_eq!(pool.judge(), [0]);
    }
    // One that is back and fails again is out for long; one that was fine for a minute is not.
    pool.wait();
    for (fine, time) in [(30, 60.0), (61, 5.0)] {
        pool.probe(0, Some(Outcome::Success));
        pool.judge();
        pool.now += Duration::from_secs(fine);
        pool.calls(0, "-----");
        assert_eq!(pool.judge(), [0]);
        let out = pool.wait();
        assert!((time * 0.9..=time * 1.1).contains(&out), "{out} {time}");
    }
    assert!(pool.now > pool.begun);
}

/// Rust peers 17: when those that were fine have gone, the rest are let in.
#[test]
fn all_are_let_in_when_few_are_left() {
    let mut pool = Pool::new(6);
    for member in 0..3 {
        pool.others_are_fine(&(0..=member).collect::<Vec<_>>());
        pool.calls(member, "-----");
        pool.judge();
    }
    assert_eq!(pool.out(), [0, 1, 2]);
    pool.members.pop();
    assert!(pool.judge().is_empty());
    assert!(pool.members.iter().all(|(_, stats)| stats.gate().enter() == Some(Pass::Free)));
}

#[test]
fn one_that_went_is_new_when_it_is_back() {
    let mut pool = Pool::new(4);
    pool.others_are_fine(&[3]);
    pool.calls(3, "-----");
    assert_eq!(pool.judge(), [3]);
    let gone = pool.members.pop().unwrap();
    pool.judge();
    assert_eq!(gone.1.gate().enter(), Some(Pass::Free));
    assert_eq!(pool.ejector.next_wake(), None);
}
