//! [`Registrar`] and [`Registration`]: publishing an instance for as long as a guard lives.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, InstanceId, ServiceName};
use crate::registry::Keep;
use crate::settings::Settings;
use crate::time::from_now;

/// Publishes instances. Go kit's `sd.Registrar`.
#[async_trait]
pub trait Registrar: Debug + Send + Sync {
    /// Publishes an instance and keeps it published until the guard ends, whatever happens to the registry.
    ///
    /// Dropping this future before it is done withdraws what may have been published.
    ///
    /// # Errors
    /// Nothing keeps running then. What the registry refuses fails at once; an unreachable registry after
    /// [`Settings::register_timeout`]. A write of unknown outcome is withdrawn, or expires by its TTL.
    async fn register(&self, instance: Instance) -> Result<Registration>;
}

/// What has become of a registration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Status {
    /// Not published yet, with the reason once an attempt has failed.
    Pending {
        /// Why the last attempt failed.
        error: Option<Error>,
    },
    /// Published, and the registry confirms it.
    Registered,
    /// Published, as far as is known; the registry does not answer at the moment.
    Unconfirmed {
        /// When it first did not answer.
        since: SystemTime,
        /// Why the last attempt failed.
        error: Error,
    },
    /// The registry has forgotten it, or must have by now; it is being published again.
    Reregistering {
        /// Why the last attempt failed, if one has.
        error: Option<Error>,
    },
    /// Another registration has claimed the id. This one never writes again.
    Superseded,
    /// On its way out: it serves what it has.
    Leaving,
    /// Nothing runs any more, and the entry is withdrawn, if nothing failed.
    Released {
        /// Why the entry was not withdrawn, if it was not: it expires by its TTL.
        error: Option<Error>,
    },
}

impl Status {
    /// Whether the entry is published and confirmed.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        matches!(self, Self::Registered)
    }

    /// Why it is not, where something failed.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Pending { error } | Self::Reregistering { error } | Self::Released { error } => {
                error.as_ref()
            }
            Self::Unconfirmed { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// A request to the driver of one registration.
#[derive(Debug)]
pub(crate) enum Command {
    /// Publish something else from now on.
    Update(Change, watch::Sender<Progress>),
    /// Leave: say so, serve on for `drain`, withdraw; all before `by`.
    Leave(Leave),
}

/// How far an update is.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Not published yet, with the reason once a try has failed.
    Waiting {
        error: Option<Error>,
    },
    Done(Result<()>),
}

/// What is to be published.
#[derive(Debug)]
pub(crate) enum Change {
    /// This.
    Content(Box<Instance>),
    /// What is published by then, as an instance that drains.
    Drain,
}

#[derive(Debug)]
pub(crate) struct Leave {
    pub(crate) drain: Duration,
    pub(crate) by: Instant,
    pub(crate) done: Option<oneshot::Sender<Result<()>>>,
    /// Keeps the registry's tasks alive until this one is through.
    pub(crate) keep: Option<Keep>,
}

impl Leave {
    pub(crate) fn at_once(by: Instant) -> Self {
        Self { drain: Duration::ZERO, by, done: None, keep: None }
    }
}

/// Keeps an instance registered for as long as it is held.
///
/// - [`deregister`](Self::deregister) is the definite end: it says that the instance leaves, serves on for the
///   drain delay, withdraws the entry, and reports.
/// - Dropping it withdraws the entry in the background, without drain delay, and at the worst the entry's TTL
///   ends it. [`Registry::close`](crate::Registry::close) waits for that.
#[must_use = "the instance is withdrawn as soon as its registration is dropped"]
pub struct Registration {
    instance: watch::Receiver<Arc<Instance>>,
    status: watch::Receiver<Status>,
    commands: mpsc::UnboundedSender<Command>,
    settings: Settings,
    keep: Option<Keep>,
}

impl Registration {
    pub(crate) fn new(
        instance: watch::Receiver<Arc<Instance>>,
        status: watch::Receiver<Status>,
        commands: mpsc::UnboundedSender<Command>,
        settings: Settings,
        keep: Option<Keep>,
    ) -> Self {
        Self { instance, status, commands, settings, keep }
    }

    /// The service it is registered under.
    #[must_use]
    pub fn service(&self) -> ServiceName {
        self.instance.borrow().service().clone()
    }

    /// The id it is registered with.
    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.instance.borrow().id().clone()
    }

    /// The content that is published, or will be as soon as the registry can be written.
    #[must_use]
    pub fn instance(&self) -> Arc<Instance> {
        Arc::clone(&self.instance.borrow())
    }

    /// What has become of it, without waiting.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The next status that this guard has not returned yet, at once if there is one. Cancel-safe.
    pub async fn status_changed(&mut self) -> Status {
        match self.status.changed().await {
            Ok(()) => self.status.borrow_and_update().clone(),
            Err(_) => self.last_status(),
        }
    }

    /// The status of a registration whose driver has ended.
    fn last_status(&self) -> Status {
        match self.status() {
            last @ (Status::Released { .. } | Status::Superseded) => last,
            // It was broken off: by the registry's close, the end of its runtime or a panic of the backend.
            _ => Status::Released { error: Some(self.broken_off()) },
        }
    }

    /// Waits until it is published and confirmed; at once if it is. Waits for as long as the registry cannot
    /// be written: [`status`](Self::status) has the reason. Cancel-safe.
    ///
    /// # Errors
    /// [`Superseded`](ErrorKind::Superseded) or [`Closed`](ErrorKind::Closed), when it never will be again.
    pub async fn registered(&self) -> Result<()> {
        self.settled(|_| false).await
    }

    /// Waits as [`registered`](Self::registered), and also ends with an error for which `hopeless` holds.
    pub(crate) async fn settled(&self, hopeless: impl Fn(&Error) -> bool) -> Result<()> {
        let mut status = self.status.clone();
        let settled = status
            .wait_for(|status| match status {
                Status::Registered | Status::Superseded | Status::Leaving | Status::Released { .. } => true,
                _ => status.error().is_some_and(&hopeless),
            })
            .await
            .map_or_else(|_| self.last_status(), |status| status.clone());
        match settled {
            Status::Registered => Ok(()),
            Status::Superseded => Err(self.superseded()),
            Status::Leaving | Status::Released { .. } => Err(self.closed()),
            status => Err(status.error().cloned().unwrap_or_else(|| self.closed())),
        }
    }

    /// Publishes another content for the same id: weight, state, zone, metadata. In place, so that no watcher
    /// sees the instance leave.
    ///
    /// Cancel-safe, and so is an error: the content is kept and published as soon as the registry can be
    /// written, unless the instance itself was refused: then what was published before stays.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid): another service, id or address, which would be another instance.
    /// What else the registry refuses, with its kind.
    /// [`Timeout`](ErrorKind::Timeout): not confirmed within [`Settings::register_timeout`].
    /// [`Superseded`](ErrorKind::Superseded), [`Closed`](ErrorKind::Closed): it is not ours any more.
    pub async fn update(&self, instance: Instance) -> Result<()> {
        {
            let now = self.instance.borrow();
            if (instance.service(), instance.id(), instance.address())
                != (now.service(), now.id(), now.address())
            {
                return Err(Error::invalid(format!(
                    "cannot update {}/{} at {} to be {}/{} at {}: service, id and address stay; register another \
                     instance instead",
                    now.service(),
                    now.id(),
                    now.address(),
                    instance.service(),
                    instance.id(),
                    instance.address()
                )));
            }
        }
        self.change(Change::Content(Box::new(instance))).await
    }

    async fn change(&self, change: Change) -> Result<()> {
        let (progress, mut told) = watch::channel(Progress::Waiting { error: None });
        self.commands.send(Command::Update(change, progress)).map_err(|_| self.closed())?;
        let done = told.wait_for(|progress| matches!(progress, Progress::Done(_)));
        match tokio::time::timeout(self.settings.register_timeout, done).await {
            Ok(Ok(progress)) => match &*progress {
                Progress::Done(result) => return result.clone(),
                Progress::Waiting { .. } => {}
            },
            Ok(Err(_)) => return Err(self.closed()),
            Err(_) => {}
        }
        let what =
            format!("the registry has not confirmed the update of {}/{} yet", self.service(), self.id());
        let error = Error::new(ErrorKind::Timeout, what);
        let reason = match &*told.borrow() {
            Progress::Waiting { error: Some(reason) } => Some(reason.clone()),
            _ => self.status().error().cloned(),
        };
        Err(match reason {
            Some(reason) => error.with_source(reason),
            None => error,
        })
    }

    /// Says that the instance wants no new requests, and keeps it registered so.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn drain(&self) -> Result<()> {
        self.change(Change::Drain).await
    }

    /// Leaves in two phases: says so, waits for the drain delay of the settings, withdraws the entry. If this
    /// future is dropped, the rest happens in the background.
    ///
    /// # Errors
    /// The registry could not be told within [`Settings::request_timeout`]; the entry expires by its TTL.
    pub async fn deregister(self) -> Result<()> {
        let (drain, answer) = (self.settings.drain, self.settings.request_timeout);
        self.leave(drain, drain + answer).await
    }

    /// Leaves as [`deregister`](Self::deregister), but is through after `within`, the drain delay being cut
    /// to half of it at the most.
    ///
    /// # Errors
    /// The registry could not be told in time; the entry expires by its TTL.
    pub async fn deregister_within(self, within: Duration) -> Result<()> {
        let drain = self.settings.drain.min(within / 2);
        self.leave(drain, within).await
    }

    async fn leave(mut self, drain: Duration, within: Duration) -> Result<()> {
        let (done, left) = oneshot::channel();
        let (by, keep) = (from_now(within), self.keep.take());
        let leave = Leave { drain, by, done: Some(done), keep };
        // That it cannot be told, or does not answer, says that it has ended by itself: the registry was closed.
        let _ = self.commands.send(Command::Leave(leave));
        match left.await {
            Ok(result) => result,
            Err(_) => match self.last_status() {
                Status::Released { error: Some(error) } => Err(error),
                _ => Ok(()),
            },
        }
    }

    fn broken_off(&self) -> Error {
        let what =
            format!("the registration of {}/{} was broken off: its entry expires", self.service(), self.id());
        Error::new(ErrorKind::Closed, what)
    }

    fn superseded(&self) -> Error {
        let what = format!("{}/{} was claimed by another registration", self.service(), self.id());
        Error::new(ErrorKind::Superseded, what)
    }

    fn closed(&self) -> Error {
        let what = format!("the registration of {}/{} has ended", self.service(), self.id());
        Error::new(ErrorKind::Closed, what)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(keep) = self.keep.take() {
            let by = from_now(self.settings.request_timeout);
            let leave = Leave { keep: Some(keep), ..Leave::at_once(by) };
            // Fails only when the driver has ended, and then there is nothing left to release.
            let _ = self.commands.send(Command::Leave(leave));
        }
    }
}

impl Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("service", &self.service())
            .field("id", &self.id())
            .field("status", &self.status())
            .finish()
    }
}
