//! [`Ejection`]: when an instance that fails is left out for a while; and [`Ejector`], which decides it. No I/O:
//! statistics and times go in, gates open and shut.

mod outliers;
mod relative;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use self::outliers::OutlierDetection;
use self::outliers::Outliers;
use self::relative::Relative;
pub(crate) use self::relative::is_suspect;
use crate::stats::Stats;

/// When an instance that fails more than the others is left out, and for how long.
///
/// Of its last 30 calls the share that failed is compared with that of all others that are not left out: as high as
/// that may be by what is known of it, and 1 % at least. It is left out if it had five calls or more of which three
/// failed, its share is higher by a fifth, and it is so by more than six standard deviations; or if five failed in a row
/// while less than a fifth of the others' do, more where that could be bad luck. Whatever hits all of them, as a
/// database that is down, leaves nobody out.
///
/// After 5 s, twice as long each time up to 60 s, one call is let through. If it succeeds the instance is back, with
/// nothing held against it, as it is when the answer has begun and goes on for a second more, as a stream's may for
/// hours; if it fails the instance is out for twice as long. At most half of them are out, and
/// never the last one. When fewer than half of those that are connected are in, as when others went, all are let in.
///
/// The rule of gRPC and Envoy, which counts calls in intervals, is [`outlier_detection`](Self::outlier_detection).
///
/// What a failure is is said by [`Picked::report`](crate::Picked::report).
#[derive(Debug, Clone, Copy)]
pub struct Ejection(Rule);

#[derive(Debug, Clone, Copy)]
enum Rule {
    Relative(Comparison),
    Outliers(OutlierDetection),
}

/// The settings of [`Relative`].
#[derive(Debug, Clone, Copy)]
struct Comparison {
    most: f64,
    panic: f64,
    first: Duration,
    longest: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        let (first, longest) = (Duration::from_secs(5), Duration::from_secs(60));
        Self(Rule::Relative(Comparison { most: 0.5, panic: 0.5, first, longest }))
    }
}

impl Ejection {
    /// The outlier detection of gRPC, with its defaults.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use callsign_lb::Ejection;
    ///
    /// let rule: Ejection = Ejection::outlier_detection().interval(Duration::from_secs(5)).failure_percentage(50, 5, 20).into();
    /// ```
    #[must_use]
    pub fn outlier_detection() -> OutlierDetection {
        OutlierDetection::default()
    }

    /// Which share of the instances may be out at the same time, from 0 to 1; a half, and a tenth by
    /// [outlier detection](Self::outlier_detection).
    #[must_use]
    pub fn most(mut self, share: f64) -> Self {
        let share = share.clamp(0.0, 1.0);
        match &mut self.0 {
            Rule::Relative(rule) => rule.most = share,
            Rule::Outliers(rule) => *rule = rule.most(share),
        }
        self
    }

    /// Below which share of those connected that are in all are let in, from 0 to 1; a half. Outlier detection does not
    /// know this, and lets all in when none is in.
    #[must_use]
    pub fn panic_threshold(mut self, share: f64) -> Self {
        if let Rule::Relative(rule) = &mut self.0 {
            rule.panic = share.clamp(0.0, 1.0);
        }
        self
    }

    /// For how long one is out the first time, and at most; 5 s and 60 s, and 30 s and 300 s by outlier detection.
    #[must_use]
    pub fn time(mut self, first: Duration, longest: Duration) -> Self {
        match &mut self.0 {
            Rule::Relative(rule) => (rule.first, rule.longest) = (first, longest.max(first)),
            Rule::Outliers(rule) => *rule = rule.time(first, longest),
        }
        self
    }

    /// Whether it wants to know at once when an instance looks bad.
    pub(crate) fn minds_suspects(&self) -> bool {
        matches!(self.0, Rule::Relative(_))
    }

    #[cfg(test)]
    #[allow(clippy::panic, reason = "for tests")]
    fn comparison(self) -> Comparison {
        match self.0 {
            Rule::Relative(rule) => rule,
            Rule::Outliers(_) => panic!("another rule"),
        }
    }
}

impl From<OutlierDetection> for Ejection {
    fn from(rule: OutlierDetection) -> Self {
        Self(Rule::Outliers(rule))
    }
}

/// Decides who is left out. Members are told apart by a number.
#[derive(Debug)]
pub(crate) enum Ejector {
    Relative(Relative),
    Outliers(Outliers),
}

impl Ejector {
    pub(crate) fn new(rule: Ejection, rng: fastrand::Rng) -> Self {
        match rule.0 {
            Rule::Relative(rule) => Self::Relative(Relative::new(rule, rng)),
            Rule::Outliers(rule) => Self::Outliers(Outliers::new(rule, rng)),
        }
    }

    /// Whether a member is not to be in the ready set.
    pub(crate) fn is_out(&self, number: u64) -> bool {
        match self {
            Self::Relative(by) => by.is_out(number),
            Self::Outliers(by) => by.is_out(number),
        }
    }

    /// Whether it has nothing to decide until somebody is suspected.
    pub(crate) fn is_idle(&self) -> bool {
        match self {
            Self::Relative(by) => by.is_idle(),
            Self::Outliers(_) => false,
        }
    }

    /// When it is to look again, whatever happens.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        match self {
            Self::Relative(by) => by.next_wake(),
            Self::Outliers(by) => by.next_wake(),
        }
    }

    /// Looks at all that could be called: who comes back, who goes.
    pub(crate) fn judge(&mut self, pool: &[(u64, Arc<Stats>)], now: Instant) {
        match self {
            Self::Relative(by) => by.judge(pool, now),
            Self::Outliers(by) => by.judge(pool, now),
        }
    }
}
