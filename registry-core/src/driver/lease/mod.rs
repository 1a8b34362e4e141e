//! [`LeaseDriver`]: keeps one registration alive. The entry is [`LeaseDriver::run`].
//!
//! One loop over named phases: *claiming* until the entry is published, *holding* it by renewals, reading it
//! back now and then and claiming again what was lost, *superseded* when another owner took the id, and
//! *leaving*. In every phase a command interrupts what is under way; the contract of [`Lease`] allows that.

mod leave;

pub(crate) use leave::LAST_TRY;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::inbox::{Inbox, Step};
use super::pace::Pace;
use crate::backend::{Claim, Kept, Lease, Loss};
use crate::error::{Error, ErrorKind, Result};
use crate::registrar::{Leave, Status};
use crate::settings::Settings;
use crate::time::from_now;

/// The pause before a failed renewal is tried again: several fit into what is left of the TTL.
const RENEW_AGAIN: Duration = Duration::from_millis(500);
/// The same where the registry answers that it cannot, or will not: pressing on makes it worse.
const RENEW_SLOWLY: Duration = Duration::from_millis(1500);
/// How far re-registrations are spread after one lease was lost by itself.
const AFTER_LOSS: Duration = Duration::from_millis(300);
/// How far they are spread after an outage, when every client of the registry returns at once.
const AFTER_OUTAGE: Duration = Duration::from_secs(4);
/// Failures for less than this are no outage.
const OUTAGE: Duration = Duration::from_secs(2);

enum Phase {
    Claiming { how: Claim, not_before: Instant },
    Holding,
    Superseded,
    Leaving(Leave),
}

/// What holding an entry calls for next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    Lost(Loss),
    Write,
    Renew,
    Verify,
}

pub(crate) struct LeaseDriver<L> {
    lease: L,
    settings: Settings,
    pace: Arc<Pace>,
    backoff: Backoff,
    status: watch::Sender<Status>,
    inbox: Inbox,
    /// Whether a claim was ever sent, so that there may be something to withdraw.
    tried: bool,
    /// Whether a claim ever succeeded.
    claimed: bool,
    ttl: Option<Duration>,
    /// When the last renewal that succeeded was sent: the registry counts from then, or later.
    renewed: Instant,
    renew_at: Instant,
    verify_at: Instant,
    write_at: Instant,
    /// Since when the registry has not answered.
    failing: Option<(Instant, SystemTime)>,
}

/// Bounds an operation that should bound itself.
async fn bounded<T>(bound: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(bound, work).await.unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Timeout,
            format!("the registry did not answer the {what} within {bound:?}"),
        ))
    })
}

impl<L: Lease> LeaseDriver<L> {
    pub(crate) fn new(
        lease: L,
        settings: Settings,
        pace: Arc<Pace>,
        status: watch::Sender<Status>,
        inbox: Inbox,
    ) -> Self {
        let now = Instant::now();
        Self {
            lease,
            pace,
            backoff: Backoff::new(settings.backoff, settings.rng()),
            status,
            inbox,
            tried: false,
            claimed: false,
            ttl: None,
            renewed: now,
            renew_at: now,
            verify_at: now,
            write_at: now,
            failing: None,
            settings,
        }
    }

    /// Runs until the registration has left.
    pub(crate) async fn run(mut self) {
        let mut phase = Phase::Claiming { how: Claim::Take, not_before: Instant::now() };
        loop {
            phase = match phase {
                Phase::Claiming { how, not_before } => self.claim(how, not_before).await,
                Phase::Holding => self.hold().await,
                Phase::Superseded => self.superseded().await,
                Phase::Leaving(leave) => return self.leave(leave).await,
            };
        }
    }

    async fn claim(&mut self, how: Claim, not_before: Instant) -> Phase {
        let turn = async {
            sleep_until(not_before).await;
            self.pace.turn().await
        };
        let turn = match self.inbox.race(turn).await {
            Step::Leave(leave) => return Phase::Leaving(leave),
            Step::Done(turn) => turn,
        };
        let (sent, instance) = (Instant::now(), self.inbox.take());
        self.tried = true;
        let claim = bounded(self.settings.request_timeout * 2, "claim", self.lease.claim(how, &instance));
        let claimed = self.inbox.race(claim).await;
        drop(turn);
        let claimed = match claimed {
            Step::Leave(leave) => return Phase::Leaving(leave),
            Step::Done(claimed) => claimed,
        };
        match claimed {
            Ok(Some(terms)) => {
                info!(service = %instance.service(), id = %instance.id(), again = self.claimed, "registered");
                self.claimed = true;
                // So that a registry which grants nothing is not renewed without a pause.
                self.ttl = terms.ttl.map(|ttl| ttl.max(RENEW_AGAIN));
                self.renewed(sent);
                self.failing = None;
                self.verify_at = from_now(self.backoff.spread(self.settings.verify));
                self.status.send_replace(Status::Registered);
                self.inbox.published();
                Phase::Holding
            }
            Ok(None) => Phase::Superseded,
            Err(error) => {
                debug!(service = %instance.service(), id = %instance.id(), error = %error.chain(), "not registered");
                let pause = self.backoff.after(error.kind(), Instant::now());
                self.inbox.unknown(&error);
                self.status.send_replace(if self.claimed {
                    Status::Reregistering { error: Some(error) }
                } else {
                    Status::Pending { error: Some(error) }
                });
                Phase::Claiming { how, not_before: Instant::now() + pause }
            }
        }
    }

    async fn hold(&mut self) -> Phase {
        self.write_at = Instant::now();
        loop {
            let writes = self.inbox.is_unwritten();
            let due = tokio::select! {
                biased;
                told = self.inbox.next() => match told {
                    Some(leave) => return Phase::Leaving(leave),
                    None => {
                        // What is new does not wait because something older was refused.
                        self.write_at = Instant::now();
                        continue;
                    }
                },
                loss = self.lease.lost() => Due::Lost(loss),
                () = sleep_until(self.write_at), if writes => Due::Write,
                () = sleep_until(self.renew_at), if self.ttl.is_some() => Due::Renew,
                () = sleep_until(self.verify_at) => Due::Verify,
            };
            let sent = Instant::now();
            let kept = match self.act(due).await {
                Step::Leave(leave) => return Phase::Leaving(leave),
                Step::Done(kept) => kept,
            };
            match kept {
                Ok(Kept::Kept) => self.kept(due, sent),
                Ok(Kept::Lost) => return self.lost(due),
                Ok(Kept::Superseded) => return Phase::Superseded,
                Err(error) => self.not_answered(due, error),
            }
        }
    }

    /// Does it, in bounded time: whatever it is, the next renewal must not come too late for it.
    async fn act(&mut self, due: Due) -> Step<Result<Kept>> {
        let most = self.settings.request_timeout;
        let bound = self.period().map_or(most, |period| period.min(most)).max(RENEW_AGAIN);
        match due {
            Due::Lost(Loss::Lost) => Step::Done(Ok(Kept::Lost)),
            Due::Lost(Loss::Superseded) => Step::Done(Ok(Kept::Superseded)),
            Due::Write => {
                let instance = self.inbox.take();
                self.inbox.race(bounded(bound, "update", self.lease.write(&instance))).await
            }
            Due::Renew => {
                if self.overdue() && self.failing.is_none() {
                    // The process was stopped for longer than the TTL.
                    self.status.send_replace(Status::Reregistering { error: None });
                }
                self.inbox.race(bounded(bound, "renewal", self.lease.renew())).await
            }
            Due::Verify => self.verify(bound).await,
        }
    }

    /// Reads the entry back. It may hold what was confirmed last, or what was sent since with an unknown outcome; what
    /// the registry has refused is no loss.
    async fn verify(&mut self, bound: Duration) -> Step<Result<Kept>> {
        let mut kept = Kept::Lost;
        for content in self.inbox.candidates() {
            match self.inbox.race(bounded(bound, "check", self.lease.verify(&content))).await {
                Step::Done(Ok(Kept::Lost)) => {}
                Step::Done(Ok(found)) => {
                    kept = found;
                    if kept == Kept::Kept {
                        self.inbox.confirmed(&content);
                    }
                    break;
                }
                other => return other,
            }
        }
        Step::Done(Ok(kept))
    }

    fn kept(&mut self, due: Due, sent: Instant) {
        match due {
            Due::Lost(_) => {}
            Due::Write => self.inbox.published(),
            Due::Renew => {
                if self.failing.take().is_some() || self.overdue() {
                    // The lease outlived it; whether the entry did is to be seen.
                    self.verify_at = Instant::now();
                }
                self.renewed(sent);
            }
            Due::Verify => {
                self.failing = None;
                self.verify_at = from_now(self.backoff.spread(self.settings.verify));
                if !self.status.borrow().is_registered() {
                    self.status.send_replace(Status::Registered);
                }
            }
        }
    }

    fn renewed(&mut self, sent: Instant) {
        self.renewed = sent;
        self.renew_at = sent + self.period().unwrap_or_default();
    }

    fn period(&self) -> Option<Duration> {
        self.ttl.map(|ttl| ttl / 3)
    }

    /// Whether the registry must have dropped the entry by now, if it is up.
    fn overdue(&self) -> bool {
        self.ttl.is_some_and(|ttl| Instant::now() > self.renewed + ttl)
    }

    /// The entry is gone: claims it again, a little later, and later still where everybody does.
    fn lost(&mut self, due: Due) -> Phase {
        let now = Instant::now();
        let outage = self.failing.is_some_and(|(since, _)| now.saturating_duration_since(since) > OUTAGE);
        let spread = self.backoff.within(if outage { AFTER_OUTAGE } else { AFTER_LOSS });
        let instance = self.inbox.desired();
        let seen_by = match due {
            Due::Lost(_) => "the registry's own word",
            Due::Write => "an update",
            Due::Renew => "a renewal",
            Due::Verify => "reading it back",
        };
        warn!(service = %instance.service(), id = %instance.id(), seen_by, "the entry is lost: claiming it again");
        self.failing = None;
        self.inbox.forgotten();
        self.status.send_replace(Status::Reregistering { error: None });
        Phase::Claiming { how: Claim::Again, not_before: now + spread }
    }

    fn not_answered(&mut self, due: Due, error: Error) {
        let now = Instant::now();
        let instance = self.inbox.desired();
        debug!(service = %instance.service(), id = %instance.id(), error = %error.chain(), "not confirmed");
        match due {
            Due::Lost(_) => {}
            Due::Write => {
                let pause = match error.kind() {
                    ErrorKind::Unavailable | ErrorKind::Timeout => self.backoff.spread(RENEW_AGAIN),
                    kind => RENEW_AGAIN + self.backoff.after(kind, now),
                };
                self.write_at = now + pause;
                if error.is_permanent() {
                    self.refused(error);
                    return;
                }
                self.inbox.unknown(&error);
            }
            Due::Renew => {
                // Sooner than the next regular one, however the registry fails: the lease is at stake.
                let pause = match error.kind() {
                    ErrorKind::Unavailable | ErrorKind::Timeout => RENEW_AGAIN,
                    _ => RENEW_SLOWLY.min(self.period().unwrap_or(RENEW_SLOWLY)),
                };
                self.renew_at = now + self.backoff.spread(pause);
            }
            Due::Verify => {
                self.verify_at = now + self.backoff.after(error.kind(), now).max(Duration::from_secs(1));
            }
        }
        let (_, since) = *self.failing.get_or_insert_with(|| (now, SystemTime::now()));
        self.status.send_replace(if self.overdue() {
            Status::Reregistering { error: Some(error) }
        } else {
            Status::Unconfirmed { since, error }
        });
    }

    /// The registry refuses an update: the caller is to know now. What is wrong with the content itself is not tried
    /// again; what somebody else may mend is, slowly.
    fn refused(&mut self, error: Error) {
        if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported) {
            self.inbox.refused();
        } else {
            self.inbox.unknown(&error);
            self.write_at = from_now(self.settings.verify);
        }
        self.inbox.answer(&Err(error));
    }

    /// Another owner has the id. Nothing is written any more; what the lease itself holds is given back.
    async fn superseded(&mut self) -> Phase {
        let instance = self.inbox.desired();
        warn!(service = %instance.service(), id = %instance.id(), "superseded: another registration claimed the id");
        self.inbox.forgotten();
        self.status.send_replace(Status::Superseded);
        let refused = Err(Error::new(
            ErrorKind::Superseded,
            format!("{}/{} was claimed by another registration", instance.service(), instance.id()),
        ));
        let release = bounded(self.settings.request_timeout, "release", self.lease.release());
        let mut told = match self.inbox.race(release).await {
            Step::Leave(leave) => Some(leave),
            Step::Done(Ok(())) => None,
            Step::Done(Err(error)) => {
                debug!(error = %error.chain(), "the superseded lease was not ended: it expires by itself");
                None
            }
        };
        let leave = loop {
            self.inbox.answer(&refused);
            match told {
                Some(leave) => break leave,
                None => told = self.inbox.next().await,
            }
        };
        Phase::Leaving(leave)
    }
}

#[cfg(test)]
mod tests;
