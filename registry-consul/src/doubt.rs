//! [`Doubt`]: when to ask what a query that waits does not tell.
//!
//! An agent answers such a query from a copy, which one server keeps up to date. It does not say that this server has
//! lost its leader or is behind, nor that we may not read any more.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use callsign_core::{HttpAnswer, PendingRequest, Result};
use tokio::time::{Instant, sleep_until, timeout};

use crate::query::{Query, index_of};

/// The most that passes until a list is read without waiting, but for the spread by a fifth.
const CHECK: Duration = Duration::from_secs(20);
/// How long a list may be put off by changes that come meanwhile.
const OVERDUE: Duration = Duration::from_secs(2);
/// How often the index is asked for, but for the spread by a fifth.
const LOOK: Duration = Duration::from_secs(4);
/// The same for [`WARY`] after something was amiss: an agent may then be seconds late in following its server again.
const LOOK_OFTEN: Duration = Duration::from_secs(1);
const WARY: Duration = Duration::from_secs(20);
/// Whoever lists for longer than that had to wait for a leader, as a rule.
const PROMPT: Duration = Duration::from_millis(500);
/// For how long servers may have no leader until that is an error: so long most elections take.
const ELECTION: Duration = Duration::from_secs(3);

/// For how long after the first failure what servers cannot tell is asked for again and again, and not only after ever
/// longer pauses: by then another of them leads, as a rule.
const FAILOVER: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Doubt {
    /// How often to ask for all.
    every: Duration,
    check_at: Instant,
    look_at: Instant,
    /// An index that was looked up and that a list had no trace of.
    disproved: u64,
    /// Whether there ever was a good answer.
    was_good: bool,
    /// Of the first failure since the last one.
    failed_at: Option<Instant>,
    wary_until: Instant,
    /// What was asked and is not answered yet: a question that is dropped takes its connection with it, and of these an
    /// agent allows only so many.
    asked: PendingRequest,
    /// Whether it is a list that a server keeps back until it knows of a leader. Asked anew, it would keep that back as
    /// long again; only once it gives up does the agent go to another server.
    is_held: bool,
    rng: fastrand::Rng,
}

impl Doubt {
    /// `check` is how often to ask whether we may still read.
    pub(crate) fn new(check: Duration, rng: fastrand::Rng) -> Self {
        let now = Instant::now();
        Self {
            every: check.min(CHECK),
            check_at: now,
            look_at: now,
            disproved: 0,
            was_good: false,
            failed_at: None,
            wary_until: now,
            asked: PendingRequest::default(),
            is_held: false,
            rng,
        }
    }

    /// There was no good answer just now.
    pub(crate) fn failed(&mut self) {
        let now = Instant::now();
        self.failed_at.get_or_insert(now);
        self.wary_until = now + WARY;
        if !mem::take(&mut self.is_held) {
            // Nobody need wait for what may not be answered any more.
            self.asked = PendingRequest::default();
        }
    }

    /// Whether all was to be asked for long ago, and changes kept coming in between.
    pub(crate) fn is_overdue(&self) -> bool {
        self.check_at.elapsed() > OVERDUE
    }

    /// There was a good answer just now.
    pub(crate) fn good(&mut self) {
        (self.was_good, self.failed_at) = (true, None);
    }

    /// Lists, which settles it for a while.
    pub(crate) async fn list(&mut self, query: &Arc<Query>) -> Result<HttpAnswer> {
        let began = Instant::now();
        let until = self.was_good.then(|| self.failed_at.unwrap_or(began) + FAILOVER);
        let query = Arc::clone(query);
        let answer = self.asked.send(async move { query.list(until).await }).await?;
        if began.elapsed() > PROMPT {
            self.failed();
        }
        self.good();
        self.check_at = Instant::now() + self.spread(self.every);
        self.look_later();
        Ok(answer)
    }

    /// Returns once there is a list that is another than at `index`, or that is empty. Cancel-safe.
    pub(crate) async fn proves(&mut self, query: &Arc<Query>, index: u64) -> Result<HttpAnswer> {
        loop {
            sleep_until(self.check_at.min(self.look_at)).await;
            let answer = if self.check_at <= Instant::now() {
                self.list(query).await?
            } else {
                let looked = self.asked.send(query.look()).await?;
                let led = query.is_led(&looked);
                if led.is_err() {
                    self.failed();
                }
                self.look_later();
                match led {
                    Ok(()) if index_of(&looked) == index || self.disproved == index_of(&looked) => continue,
                    // One that is lower is that of a restored Consul, or of a server that is behind: the leader knows.
                    Ok(()) => {
                        let answer = self.list(query).await?;
                        self.disproved = if index_of(&answer) == index { index_of(&looked) } else { 0 };
                        answer
                    }
                    // There was none for long, and what is cached or stale would still be answered.
                    Err(error) if query.scope.consistency.suffices() => return Err(error),
                    // It is answered once there is a leader. Where none comes, it is this that makes the agent go to
                    // another server in the end.
                    Err(error) => match timeout(ELECTION, self.list(query)).await {
                        Ok(answer) => answer?,
                        Err(_) => {
                            self.is_held = true;
                            return Err(error);
                        }
                    },
                }
            };
            if index_of(&answer) != index || query.agent.shuts_out(&answer) {
                return Ok(answer);
            }
        }
    }

    fn look_later(&mut self) {
        let now = Instant::now();
        self.look_at = now + self.spread(if now < self.wary_until { LOOK_OFTEN } else { LOOK });
    }

    fn spread(&mut self, period: Duration) -> Duration {
        period.mul_f64(0.8 + 0.4 * self.rng.f64())
    }
}
