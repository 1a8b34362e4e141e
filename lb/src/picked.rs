//! [`Picked`]: the hold on an endpoint during a call, which notes what became of it.

use std::fmt::{self, Debug};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use callsign_core::Instance;

use crate::clock::Tick;
use crate::ejection::is_suspect;
use crate::ewma::{Ewma, PENALTY};
use crate::factory::Lifeline;
use crate::gate::Pass;
use crate::slot::Link;
use crate::stats::{Outcome, Stats};

/// How latencies are measured: by which rule, if at all, and on which clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    pub(crate) rule: Option<Ewma>,
    pub(crate) clock: fn() -> Tick,
    /// The moment of the pick, if it was asked for.
    pub(crate) begun: Option<Tick>,
}

impl Measure {
    #[cfg(test)]
    pub(crate) const NONE: Self = Self { rule: None, clock: Tick::now, begun: None };

    /// For a pick that begins now. The clock is read once for the choice and the call, and only if somebody wants to
    /// know.
    #[inline]
    pub(crate) fn begin(self) -> Self {
        Self { begun: self.rule.map(|_| (self.clock)()), ..self }
    }
}

/// An endpoint that was picked for a call; dereferences to it. The call counts as in flight until this is
/// dropped, and so long the endpoint stays open, even when its instance leaves.
///
/// [`report`](Self::report) says what became of the call; [`Retry`](crate::Retry) and `grpc::Channel` do so by
/// themselves. It is noted, once, when this is dropped. A call of which nothing is reported was given up by its
/// caller: a failure if it lasted for as long as it was [allowed](Self::allow); none otherwise, and all that it shows
/// is that the instance takes at least as long (1 s at most).
pub struct Picked<E> {
    link: Arc<Link<E>>,
    notes: Notes,
}

enum Notes {
    Own(Record),
    Shared(Arc<Witness>),
}

impl<E> Picked<E> {
    #[inline]
    pub(crate) fn new(link: Arc<Link<E>>, measure: Measure, pass: Pass) -> Self {
        link.stats().begin();
        Self { link, notes: Notes::Own(Record::new(measure, pass)) }
    }

    /// The instance that was picked.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        self.link.instance()
    }

    /// Says that the endpoint turned out to be of no more use, for endpoints that cannot tell it themselves.
    /// It is not picked any more from this moment, and another one is made in its place.
    pub fn report_closed(&self) {
        self.link.lifeline().cut();
    }

    /// Says what became of the call. Only the first report counts.
    #[inline]
    pub fn report(&self, outcome: Outcome) {
        self.record().report(outcome);
    }

    /// Says that the answer has begun: this is the latency, however long the rest of it takes. Only the first time
    /// counts. Without it the latency is all of the time until this is dropped.
    #[inline]
    pub fn answered(&self) {
        self.record().answered(self.link.stats(), self.link.lifeline());
    }

    /// Says how long the call may take from now on, which is what a failure counts as in the average latency, at
    /// least; 1 s without it.
    pub fn allow(&self, within: Duration) {
        self.record().allow(within);
    }

    pub(crate) fn number(&self) -> u64 {
        self.link.number()
    }

    /// Lets somebody else report too. The call is noted when both are gone.
    pub(crate) fn watch(&mut self) -> Arc<Witness> {
        let witness = match &self.notes {
            Notes::Shared(witness) => return Arc::clone(witness),
            Notes::Own(record) => {
                let (stats, lifeline) = (Arc::clone(self.link.stats()), self.link.lifeline().clone());
                Arc::new(Witness { stats, lifeline, record: record.take() })
            }
        };
        self.notes = Notes::Shared(Arc::clone(&witness));
        witness
    }

    #[inline]
    fn record(&self) -> &Record {
        match &self.notes {
            Notes::Own(record) => record,
            Notes::Shared(witness) => &witness.record,
        }
    }
}

impl<E> Deref for Picked<E> {
    type Target = E;

    fn deref(&self) -> &E {
        self.link.endpoint()
    }
}

impl<E> Drop for Picked<E> {
    #[inline]
    fn drop(&mut self) {
        let stats = self.link.stats();
        match &self.notes {
            Notes::Own(record) => {
                let outcome = record.settle(stats, |outcome| stats.end(outcome));
                record.tell(outcome, stats, self.link.lifeline());
            }
            Notes::Shared(_) => stats.end(None),
        }
    }
}

impl<E> Debug for Picked<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picked").field("instance", self.instance().id()).finish_non_exhaustive()
    }
}

/// What several hold who may report on one call.
pub(crate) struct Witness {
    stats: Arc<Stats>,
    lifeline: Lifeline,
    record: Record,
}

impl Witness {
    #[inline]
    pub(crate) fn report(&self, outcome: Outcome) {
        self.record.report(outcome);
    }

    #[inline]
    pub(crate) fn answered(&self) {
        self.record.answered(&self.stats, &self.lifeline);
    }

    pub(crate) fn allow(&self, within: Duration) {
        self.record.allow(within);
    }
}

impl Drop for Witness {
    #[inline]
    fn drop(&mut self) {
        let outcome = self.record.settle(&self.stats, |outcome| {
            if let Some(outcome) = outcome {
                self.stats.judge(outcome);
            }
        });
        self.record.tell(outcome, &self.stats, &self.lifeline);
    }
}

/// What is known of one call so far.
struct Record {
    measure: Measure,
    pass: Pass,
    /// When its answer began, 0 before.
    answered: AtomicU64,
    /// When its time is up, 0 where nothing was said.
    due: AtomicU64,
    outcome: AtomicU8,
}

/// By how much a timer may be early.
const SLACK: Duration = Duration::from_millis(1);

const UNKNOWN: u8 = 0;
const SUCCESS: u8 = 1;
const FAILURE: u8 = 2;

impl Record {
    #[inline]
    fn new(measure: Measure, pass: Pass) -> Self {
        Self {
            measure,
            pass,
            answered: AtomicU64::new(0),
            due: AtomicU64::new(0),
            outcome: AtomicU8::new(UNKNOWN),
        }
    }

    /// The same record, for another holder.
    fn take(&self) -> Self {
        Self {
            measure: self.measure,
            pass: self.pass,
            answered: AtomicU64::new(self.answered.load(Ordering::Relaxed)),
            due: AtomicU64::new(self.due.load(Ordering::Relaxed)),
            outcome: AtomicU8::new(self.outcome.load(Ordering::Relaxed)),
        }
    }

    #[inline]
    fn report(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Success => SUCCESS,
            Outcome::Failure => FAILURE,
        };
        // Whoever was first has said it. Of two at the same moment either is right, so that nothing has to be exchanged.
        if self.outcome.load(Ordering::Relaxed) == UNKNOWN {
            self.outcome.store(outcome, Ordering::Relaxed);
        }
    }

    #[inline]
    fn answered(&self, stats: &Stats, lifeline: &Lifeline) {
        if self.pass == Pass::Probe && stats.gate().answered() {
            lifeline.suspect();
        }
        if self.measure.begun.is_some() && self.answered.load(Ordering::Relaxed) == 0 {
            self.answered.store((self.measure.clock)().to_bits(), Ordering::Relaxed);
        }
    }

    fn allow(&self, within: Duration) {
        self.due.store((self.measure.clock)().after(within).to_bits(), Ordering::Relaxed);
    }

    /// Tells whoever ejects instances what it would want to know at once.
    #[inline]
    fn tell(&self, outcome: Option<Outcome>, stats: &Stats, lifeline: &Lifeline) {
        if self.pass == Pass::Probe {
            stats.gate().probed(outcome);
            if outcome.is_some() {
                lifeline.suspect();
            }
        } else if outcome == Some(Outcome::Failure) {
            let (failed, seen) = stats.outcomes();
            if is_suspect(failed, seen, stats.failed_in_a_row()) {
                lifeline.suspect();
            }
        }
    }

    /// Ends the call with its outcome, puts the latency into the statistics of the instance, and returns the outcome.
    #[inline]
    fn settle(&self, stats: &Stats, end: impl FnOnce(Option<Outcome>)) -> Option<Outcome> {
        let reported = match self.outcome.load(Ordering::Relaxed) {
            SUCCESS => Some(Outcome::Success),
            FAILURE => Some(Outcome::Failure),
            _ => None,
        };
        let due = Tick::from_bits(self.due.load(Ordering::Relaxed));
        let answered = Tick::from_bits(self.answered.load(Ordering::Relaxed));
        let Measure { rule, begun, clock } = self.measure;
        let now = || (begun.is_some() || due.is_some()).then(clock);
        let (outcome, now) = if reported.is_some() {
            // First, as a step that all threads see waits for what came before it, and the clock can be read meanwhile.
            end(reported);
            (reported, now())
        } else {
            let now = now();
            // Whoever gives up when the time is up has no more to report.
            let late = due.zip(now).filter(|(due, now)| answered.is_none() && now.after(SLACK) >= *due);
            let outcome = late.map(|_| Outcome::Failure);
            end(outcome);
            (outcome, now)
        };
        let (Some(rule), Some(begun), Some(now)) = (rule, begun, now) else { return outcome };
        let latency = answered.unwrap_or(now).seconds_since(begun);
        let allowed = due.map(|due| due.seconds_since(begun));
        match outcome {
            Some(outcome) => stats.learn(&rule, now, latency, outcome, allowed),
            None if answered.is_some() => stats.learn(&rule, now, latency, Outcome::Success, None),
            None => {
                // Not to learn from it would make an instance that has stopped look ever faster: its average
                // decays while whoever calls it loses patience.
                let least = latency.min(allowed.unwrap_or(PENALTY));
                // Of one that is not known yet a call that was given up at once says nothing.
                let expected = stats.expected(&rule, now).unwrap_or(0.001);
                if least > expected {
                    stats.learn(&rule, now, least, Outcome::Success, None);
                }
            }
        }
        outcome
    }
}
