//! The last phase of a registration: it says that it leaves, serves on, and withdraws the entry.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::{LeaseDriver, bounded};
use crate::backend::{Kept, Lease};
use crate::driver::inbox::Inbox;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, State};
use crate::registrar::{Leave, Status};

/// The least that one try to withdraw is given, however late it is: it may be a local one that needs no time.
pub(crate) const LAST_TRY: Duration = Duration::from_millis(100);

impl<L: Lease> LeaseDriver<L> {
    pub(super) async fn leave(mut self, leave: Leave) {
        let Leave { drain, mut by, done, keep } = leave;
        self.inbox.answer(&Err(Error::new(ErrorKind::Closed, "the registration is on its way out")));
        if matches!(*self.status.borrow(), Status::Superseded) {
            // The entry is another's: there is nothing to withdraw, and nobody to wait for.
            if let Some(done) = done {
                let _ = done.send(Ok(()));
            }
            return;
        }
        self.status.send_replace(Status::Leaving);
        let result = self.withdraw(drain, &mut by).await;
        let instance = self.inbox.desired();
        match &result {
            Ok(()) => info!(service = %instance.service(), id = %instance.id(), "deregistered"),
            Err(error) => {
                warn!(service = %instance.service(), id = %instance.id(), error = %error.chain(), "not deregistered");
            }
        }
        self.status.send_replace(Status::Released { error: result.clone().err() });
        if let Some(done) = done {
            let _ = done.send(result);
        }
        drop(keep);
    }

    /// The two phases.
    async fn withdraw(&mut self, drain: Duration, by: &mut Instant) -> Result<()> {
        if !self.claimed || drain.is_zero() {
            return self.release(by).await;
        }
        let begun = Instant::now();
        match self.say_so(*by).await {
            Ok(Kept::Kept) => {
                let renewals = renewals(&mut self.lease, self.renewed, self.ttl);
                tokio::select! {
                    () = wait(&mut self.inbox, Instant::now() + drain, by) => {}
                    () = renewals => {}
                }
            }
            // Gone already, so that nobody new comes.
            Ok(Kept::Lost | Kept::Superseded) => {}
            // It cannot be said, and may be done all the same: then clients hear of it by that, and need their time.
            Err(_) => {
                self.release(by).await?;
                wait(&mut self.inbox, begun + drain, by).await;
                return Ok(());
            }
        }
        self.release(by).await
    }

    /// Says that the instance leaves.
    async fn say_so(&mut self, by: Instant) -> Result<Kept> {
        let draining = Instance::clone(&self.inbox.desired()).with_state(State::Draining);
        let bound = by.saturating_duration_since(Instant::now()) / 2;
        bounded(bound.min(self.settings.request_timeout), "drain", self.lease.write(&draining)).await
    }

    /// Withdraws the entry, trying again until it is too late.
    async fn release(&mut self, by: &mut Instant) -> Result<()> {
        if !self.tried {
            return Ok(());
        }
        loop {
            let left = by.saturating_duration_since(Instant::now());
            let bound = left.max(LAST_TRY).min(self.settings.request_timeout);
            let Err(error) = bounded(bound, "release", self.lease.release()).await else { return Ok(()) };
            let pause = self.backoff.spread(Duration::from_millis(200));
            if error.is_temporary() && Instant::now() + pause < *by {
                wait(&mut self.inbox, Instant::now() + pause, by).await;
                continue;
            }
            return Err(self.not_withdrawn(error));
        }
    }

    fn not_withdrawn(&self, error: Error) -> Error {
        let instance = self.inbox.desired();
        let expires = match self.ttl {
            Some(ttl) => format!("it expires within {ttl:?}"),
            None if self.claimed => "it may stay".to_owned(),
            None => "if it was written at all, it expires by its TTL".to_owned(),
        };
        let what =
            format!("the entry of {}/{} was not withdrawn; {expires}", instance.service(), instance.id());
        Error::new(error.kind(), what).with_source(error)
    }
}

/// Waits until `until`, or `by` at the latest, which comes sooner if the registry closes meanwhile.
async fn wait(inbox: &mut Inbox, until: Instant, by: &mut Instant) {
    tokio::select! {
        () = sleep_until(until.min(*by)) => {}
        closing = inbox.closes_before(*by) => *by = closing,
    }
}

/// Keeps a lease alive that its registration is about to give up. Never ends.
async fn renewals(lease: &mut impl Lease, mut renewed: Instant, ttl: Option<Duration>) {
    let Some(period) = ttl.map(|ttl| ttl / 3) else { return std::future::pending().await };
    loop {
        sleep_until(renewed + period).await;
        renewed = Instant::now();
        let _ = bounded(period, "renewal", lease.renew()).await;
    }
}
