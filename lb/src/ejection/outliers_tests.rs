use super::*;
use crate::stats::Outcome;

struct Pool {
    outliers: Outliers,
    members: Vec<(u64, Arc<Stats>)>,
    now: Instant,
}

impl Pool {
    fn by(rule: OutlierDetection, members: u64) -> Self {
        let now = Instant::now();
        let mut outliers = Outliers::new(rule, fastrand::Rng::with_seed(1));
        let members: Vec<_> = (0..members).map(|number| (number, Arc::default())).collect();
        outliers.judge(&members, now);
        Self { outliers, members, now }
    }

    fn calls(&self, member: usize, succeeded: u32, failed: u32) {
        let stats = &self.members[member].1;
        for (outcome, count) in [(Outcome::Success, succeeded), (Outcome::Failure, failed)] {
            for _ in 0..count {
                stats.begin();
                stats.end(Some(outcome));
            }
        }
    }

    /// Each has so many calls, of which those of the first few fail as said.
    fn interval(&mut self, calls: u32, failed: &[u32]) -> Vec<u64> {
        for member in 0..self.members.len() {
            let failed = failed.get(member).copied().unwrap_or(0);
            if !self.outliers.is_out(member as u64) {
                self.calls(member, calls - failed, failed);
            }
        }
        self.pass()
    }

    /// The interval ends.
    fn pass(&mut self) -> Vec<u64> {
        self.now = self.outliers.next_wake().unwrap();
        self.outliers.judge(&self.members, self.now);
        self.out()
    }

    fn out(&self) -> Vec<u64> {
        self.members
            .iter()
            .map(|(number, _)| *number)
            .filter(|number| self.outliers.is_out(*number))
            .collect()
    }
}

fn only_success() -> OutlierDetection {
    OutlierDetection::default().enforced(100, 0)
}

fn only_failure() -> OutlierDetection {
    OutlierDetection::default().enforced(0, 100)
}

/// Rates 0.8 and nine times 1: the mean is 0.98 and the deviation 0.06, so that all below 0.866 go.
#[test]
fn goes_by_the_success_rate_of_the_interval() {
    let mut pool = Pool::by(only_success(), 10);
    assert!(pool.interval(99, &[99]).is_empty(), "too few calls");
    pool.calls(1, 0, 100);
    pool.outliers.judge(&pool.members, pool.now + Duration::from_millis(9_999));
    assert!(pool.out().is_empty(), "nothing before the interval ends");
    for (number, stats) in &pool.members {
        assert_eq!(stats.take_tally().calls(), if *number == 1 { 100 } else { 0 });
    }
    assert_eq!(pool.interval(100, &[20]), [0]);
    assert_eq!(pool.members[0].1.gate().opening(), Opening::Shut);
    // Four with the same calls are too few to tell.
    let mut few = Pool::by(only_success(), 4);
    assert!(few.interval(100, &[50]).is_empty());
    // Of five one may always be below, by 2 deviations: 1 of 5 alone is.
    let mut five = Pool::by(only_success(), 5);
    assert_eq!(five.interval(100, &[1]), [0]);
    // Two of eight: the deviation is 0.433 of the gap, both are 0.75 / 0.433 = 1.73 of them below.
    let mut eight = Pool::by(only_success(), 8);
    assert!(eight.interval(100, &[50, 50]).is_empty());
    assert!(eight.interval(100, &[0; 8]).is_empty(), "nobody is below where all are alike");
}

#[test]
fn goes_by_the_percentage_of_failures() {
    for (calls, failed, out) in [(50, 43, 1), (50, 42, 0), (49, 49, 0), (100, 85, 0), (100, 86, 1)] {
        let mut pool = Pool::by(only_failure(), 5);
        assert_eq!(pool.interval(calls, &[failed]).len(), out, "{failed} of {calls}");
    }
    let mut few = Pool::by(only_failure(), 4);
    assert!(few.interval(100, &[100]).is_empty());
    let mut off = Pool::by(OutlierDetection::default().enforced(0, 0), 5);
    assert!(off.interval(1_000, &[1_000]).is_empty());
}

/// None more go once a tenth are out: one of ten, two of eleven; and one where a tenth is less than one.
#[test]
fn a_tenth_may_be_out_and_one_in_any_case() {
    for (members, out) in [(5, 1), (10, 1), (11, 2), (20, 2), (21, 3)] {
        let mut pool = Pool::by(only_failure(), members);
        assert_eq!(pool.interval(50, &[50; 4]).len(), out, "of {members}");
    }
    let mut pool = Pool::by(only_failure().most(1.0), 5);
    assert_eq!(pool.interval(50, &[50; 5]), [0, 1, 2, 3], "never the last");
    let mut pool = Pool::by(only_failure().most(0.0), 5);
    assert!(pool.interval(50, &[50]).is_empty());
}

/// 30 s, then 60 s, up to 300 s; the multiplier goes down in each interval that it is in.
#[test]
fn is_out_for_longer_each_time() {
    let mut pool = Pool::by(only_failure(), 5);
    // It is looked at each 10 s, and more than the time must have passed.
    for intervals in [4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 31, 31] {
        assert_eq!(pool.interval(50, &[50]), [0]);
        for _ in 1..intervals {
            assert_eq!(pool.pass(), [0], "of {intervals}");
        }
        assert!(pool.pass().is_empty(), "{intervals}");
    }
    let mut pool = Pool::by(only_failure(), 5);
    for _ in 0..2 {
        assert_eq!(pool.interval(50, &[50]), [0]);
        while !pool.pass().is_empty() {}
    }
    assert!(pool.interval(50, &[]).is_empty() && pool.interval(50, &[]).is_empty());
    assert_eq!(pool.interval(50, &[50]), [0]);
    for _ in 1..4 {
        assert_eq!(pool.pass(), [0]);
    }
    assert!(pool.pass().is_empty());
}

#[test]
fn nobody_is_left_without_anybody_to_call() {
    let mut pool = Pool::by(only_failure(), 5);
    assert_eq!(pool.interval(50, &[50]), [0]);
    pool.members.truncate(1);
    pool.outliers.judge(&pool.members, pool.now);
    assert!(pool.out().is_empty());
    assert_eq!(pool.members[0].1.gate().opening(), Opening::Open);
}
