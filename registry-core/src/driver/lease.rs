//! [`LeaseDriver`]: keeps one registration alive. The entry is [`LeaseDriver::run`].
//!
//! One loop over named phases: *claiming* until the entry is published, *holding* it by renewals, reading it
//! back now and then and claiming again what was lost, *superseded* when another owner took the id, and
//! *leaving*. In every phase a command interrupts what is under way; the contract of [`Lease`] allows that.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::pace::Pace;
use crate::backend::{Claim, Kept, Lease, Loss};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, State};
use crate::registrar::{Command, Leave, Status};
use crate::settings::Settings;

/// The pause before a failed renewal is tried again: several fit into what is left of the TTL.
const RENEW_AGAIN: Duration = Duration::from_millis(500);
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

/// What came first: the end of the work, or the word to leave.
enum Step<T> {
    Done(T),
    Leave(Leave),
}

pub(crate) struct LeaseDriver<L> {
    lease: L,
    settings: Settings,
    pace: Arc<Pace>,
    backoff: Backoff,
    status: watch::Sender<Status>,
    inbox: Inbox,
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

/// What the guard wants: the content to publish, and the end. The registry wants an end too, when it closes.
pub(crate) struct Inbox {
    commands: mpsc::UnboundedReceiver<Command>,
    closing: watch::Receiver<Option<Instant>>,
    drain: Duration,
    /// What is to be published, shared with the guard.
    desired: watch::Sender<Arc<Instance>>,
    /// Whether that is not what was published last.
    unwritten: bool,
    /// The updates that are not published yet.
    waiting: Vec<oneshot::Sender<Result<()>>>,
}

impl Inbox {
    pub(crate) fn new(
        commands: mpsc::UnboundedReceiver<Command>,
        closing: watch::Receiver<Option<Instant>>,
        drain: Duration,
        desired: watch::Sender<Arc<Instance>>,
    ) -> Self {
        Self { commands, closing, drain, desired, unwritten: true, waiting: Vec::new() }
    }

    fn desired(&self) -> Arc<Instance> {
        Arc::clone(&self.desired.borrow())
    }

    /// The content to publish now; an update that comes meanwhile makes it [`unwritten`](Self::unwritten) again.
    fn take(&mut self) -> Arc<Instance> {
        self.unwritten = false;
        self.desired()
    }

    /// What was taken last is published.
    fn published(&mut self) {
        if !self.unwritten {
            self.answer(&Ok(()));
        }
    }

    fn answer(&mut self, result: &Result<()>) {
        for waiting in self.waiting.drain(..) {
            // Whoever gave up waiting does not mind.
            let _ = waiting.send(result.clone());
        }
    }

    /// Waits for a command: takes an update in, or returns the word to leave. Cancel-safe.
    async fn next(&mut self) -> Option<Leave> {
        let command = tokio::select! {
            biased;
            command = self.commands.recv() => command,
            by = self.closing.wait_for(Option::is_some) => {
                // An error: the registry itself is gone, and nobody waits for us.
                let by = by.ok().and_then(|by| *by).unwrap_or_else(Instant::now);
                let drain = self.drain.min(by.saturating_duration_since(Instant::now()) / 2);
                Some(Command::Leave(Leave { drain, ..Leave::at_once(by) }))
            }
        };
        match command {
            Some(Command::Update(instance, done)) => {
                self.update(*instance, done);
                None
            }
            Some(Command::Leave(leave)) => Some(leave),
            None => Some(Leave::at_once(Instant::now())),
        }
    }

    /// Does `work`, unless the word to leave comes first. Updates are taken in without disturbing it.
    async fn race<T>(&mut self, work: impl Future<Output = T>) -> Step<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                told = self.next() => if let Some(leave) = told { return Step::Leave(leave) },
                done = &mut work => return Step::Done(done),
            }
        }
    }

    fn update(&mut self, instance: Instance, done: oneshot::Sender<Result<()>>) {
        self.unwritten |= **self.desired.borrow() != instance;
        self.desired.send_replace(Arc::new(instance));
        if self.unwritten {
            self.waiting.push(done);
        } else {
            let _ = done.send(Ok(()));
        }
    }
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
            self.pace.turn().await;
        };
        if let Step::Leave(leave) = self.inbox.race(turn).await {
            return Phase::Leaving(leave);
        }
        let (sent, instance) = (Instant::now(), self.inbox.take());
        let claim = bounded(self.settings.request_timeout * 2, "claim", self.lease.claim(how, &instance));
        let claimed = match self.inbox.race(claim).await {
            Step::Leave(leave) => return Phase::Leaving(leave),
            Step::Done(claimed) => claimed,
        };
        match claimed {
            Ok(Some(terms)) => {
                info!(service = %instance.service(), id = %instance.id(), again = self.claimed, "registered");
                self.claimed = true;
                self.ttl = terms.ttl;
                self.renewed(sent);
                self.failing = None;
                self.verify_at = Instant::now() + self.backoff.spread(self.settings.verify);
                self.status.send_replace(Status::Registered);
                self.inbox.published();
                Phase::Holding
            }
            Ok(None) => Phase::Superseded,
            Err(error) => {
                debug!(service = %instance.service(), id = %instance.id(), error = %error.chain(), "not registered");
                let pause = self.backoff.after(error.kind(), Instant::now());
                self.inbox.unwritten = true;
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
            let due = tokio::select! {
                biased;
                told = self.inbox.next() => match told {
                    Some(leave) => return Phase::Leaving(leave),
                    None => continue,
                },
                loss = self.lease.lost() => Due::Lost(loss),
                () = sleep_until(self.write_at), if self.inbox.unwritten => Due::Write,
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

    /// Does it, in bounded time.
    async fn act(&mut self, due: Due) -> Step<Result<Kept>> {
        let bound = self.settings.request_timeout;
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
                let bound = self.period().map_or(bound, |period| period.min(bound)).max(RENEW_AGAIN);
                self.inbox.race(bounded(bound, "renewal", self.lease.renew())).await
            }
            Due::Verify => {
                let instance = self.inbox.desired();
                self.inbox.race(bounded(bound, "check", self.lease.verify(&instance))).await
            }
        }
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
                self.verify_at = Instant::now() + self.backoff.spread(self.settings.verify);
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
        self.inbox.unwritten = true;
        self.status.send_replace(Status::Reregistering { error: None });
        Phase::Claiming { how: Claim::Again, not_before: now + spread }
    }

    fn not_answered(&mut self, due: Due, error: Error) {
        let now = Instant::now();
        let again = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Timeout => self.backoff.spread(RENEW_AGAIN),
            kind => RENEW_AGAIN + self.backoff.after(kind, now),
        };
        let instance = self.inbox.desired();
        debug!(service = %instance.service(), id = %instance.id(), error = %error.chain(), "not confirmed");
        match due {
            Due::Lost(_) => {}
            Due::Write => {
                self.inbox.unwritten = true;
                self.write_at = now + again;
                if error.is_permanent() {
                    // Tried again all the same, slowly, but the caller is to know now.
                    self.inbox.answer(&Err(error));
                    self.write_at = now + self.settings.verify;
                    return;
                }
            }
            Due::Renew => self.renew_at = now + again,
            Due::Verify => self.verify_at = now + again.max(Duration::from_secs(1)),
        }
        let (_, since) = *self.failing.get_or_insert_with(|| (now, SystemTime::now()));
        self.status.send_replace(if self.overdue() {
            Status::Reregistering { error: Some(error) }
        } else {
            Status::Unconfirmed { since, error }
        });
    }

    /// Another owner has the id. Nothing is written any more; what the lease itself holds is given back.
    async fn superseded(&mut self) -> Phase {
        let instance = self.inbox.desired();
        warn!(service = %instance.service(), id = %instance.id(), "superseded: another registration claimed the id");
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

    async fn leave(mut self, leave: Leave) {
        let Leave { drain, by, done, keep } = leave;
        self.inbox.answer(&Err(Error::new(ErrorKind::Closed, "the registration is on its way out")));
        if matches!(*self.status.borrow(), Status::Superseded) {
            // The entry is another's: there is nothing to withdraw, and nobody to wait for.
            if let Some(done) = done {
                let _ = done.send(Ok(()));
            }
            return;
        }
        self.status.send_replace(Status::Leaving);
        if self.claimed && !drain.is_zero() {
            self.drain(drain.min(by.saturating_duration_since(Instant::now())), by).await;
        }
        let result = self.release(by).await;
        let instance = self.inbox.desired();
        match &result {
            Ok(()) => info!(service = %instance.service(), id = %instance.id(), "deregistered"),
            Err(error) => {
                warn!(service = %instance.service(), id = %instance.id(), error = %error.chain(), "not deregistered");
            }
        }
        self.status.send_replace(Status::Released);
        if let Some(done) = done {
            let _ = done.send(result);
        }
        drop(keep);
    }

    /// Says that the instance leaves, and keeps the entry alive for as long as clients may take to hear of it.
    async fn drain(&mut self, drain: Duration, by: Instant) {
        let draining = Instance::clone(&self.inbox.desired()).with_state(State::Draining);
        let bound = by.saturating_duration_since(Instant::now()).min(self.settings.request_timeout);
        if !matches!(bounded(bound, "drain", self.lease.write(&draining)).await, Ok(Kept::Kept)) {
            // Nobody can hear of it, so there is nothing to wait for.
            return;
        }
        let until = (Instant::now() + drain).min(by);
        let renewals = async {
            let Some(period) = self.period() else { return std::future::pending().await };
            loop {
                sleep_until(self.renewed + period).await;
                self.renewed = Instant::now();
                let _ = bounded(period, "renewal", self.lease.renew()).await;
            }
        };
        tokio::select! {
            () = sleep_until(until) => {}
            () = renewals => {}
        }
    }

    /// Withdraws the entry, trying again until it is too late.
    async fn release(&mut self, by: Instant) -> Result<()> {
        loop {
            let left = by.saturating_duration_since(Instant::now());
            // At least one try, however late: it may be a local one that needs no time.
            let bound = left.max(Duration::from_millis(100)).min(self.settings.request_timeout);
            let error = match bounded(bound, "release", self.lease.release()).await {
                Ok(()) => return Ok(()),
                // Nothing was confirmed; what may have been written all the same expires.
                Err(_) if !self.claimed => return Ok(()),
                Err(error) => error,
            };
            let pause = self.backoff.spread(Duration::from_millis(200));
            if !error.is_temporary() || Instant::now() + pause >= by {
                let instance = self.inbox.desired();
                let expires = match self.ttl {
                    Some(ttl) => format!("it expires within {ttl:?}"),
                    None => "it may stay".to_owned(),
                };
                let what = format!(
                    "the entry of {}/{} was not withdrawn; {expires}",
                    instance.service(),
                    instance.id()
                );
                return Err(Error::new(error.kind(), what).with_source(error));
            }
            sleep(pause).await;
        }
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
