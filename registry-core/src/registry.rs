//! [`Registry`]: a registry of any kind, and the owner of every background task of it.
//!
//! [`Registry::new`] makes one of any [`Protocol`]. Handles, watches and guards are tied together so that
//! nothing runs longer than somebody needs it: a watch's driver ends with its last subscriber, a lease's driver
//! ends when it has released, and [`Registry::close`] ends them all.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::backend::Protocol;
use crate::driver::inbox::Inbox;
use crate::driver::lease::{LAST_TRY, LeaseDriver};
use crate::driver::pace::Pace;
use crate::driver::watch::WatchDriver;
use crate::error::{Error, ErrorKind, Result};
use crate::instancer::{InstanceWatch, Instancer};
use crate::model::{Instance, InstanceId, ServiceName};
use crate::registrar::{Registrar, Registration, Status};
use crate::report::Report;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::time::from_now;

/// An open registry: registers instances and watches services, through whichever protocol it was opened with.
///
/// Clones are handles of the same registry. It does no I/O before it is asked to.
#[derive(Clone)]
pub struct Registry(Arc<dyn AnyCore>);

/// Keeps a registry's tasks alive for whoever still needs one of them.
pub(crate) type Keep = Arc<dyn AnyCore>;

impl Registry {
    /// A registry that speaks `protocol`, its tasks running on the current Tokio runtime. `name` is for people:
    /// its URL without secrets.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) outside a Tokio runtime.
    pub fn new<P: Protocol>(name: impl Into<String>, protocol: P) -> Result<Self> {
        let name = name.into();
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(
                ErrorKind::Unsupported,
                format!("registry {name} needs a Tokio runtime to run on: open it inside #[tokio::main] or block_on"),
            )
            .with_source(error)
        })?;
        let pace = Arc::new(Pace::new(protocol.settings().claims_per_second));
        let (closing, _) = watch::channel(None);
        Ok(Self(Arc::new_cyclic(|this| Core {
            this: Weak::clone(this),
            name,
            protocol,
            runtime,
            tasks: TaskTracker::new(),
            aborts: Mutex::default(),
            watches: Mutex::default(),
            closing,
            pace,
        })))
    }

    /// Registers an instance whether or not the registry can be reached: returns at once, keeps trying, and the
    /// guard's [`status`](Registration::status) tells how it goes.
    pub fn keep_registered(&self, instance: Instance) -> Registration {
        self.0.keep_registered(instance)
    }

    /// The names under which anything is registered, sorted.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub async fn services(&self) -> Result<Vec<ServiceName>> {
        self.0.services().await
    }

    /// Removes an entry, whoever owns it; an owner that is alive will register again.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none, or the registry cannot be written.
    pub async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        self.0.remove(service, id).await
    }

    /// Tries to reach, read and write the registry, and says what was refused. Leaves nothing behind.
    pub async fn check(&self) -> Report {
        self.0.check().await
    }

    /// Ends everything: registrations that are still held leave in two phases, the releases of dropped guards
    /// are finished, watches end. Returns after `within` at the latest, and a fifth of a second for a last try.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout): something did not end in time and was broken off; its entries expire by
    /// their TTL.
    pub async fn close(&self, within: Duration) -> Result<()> {
        self.0.close(within).await
    }

    /// What both drivers keep to here.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.0.settings()
    }
}

#[async_trait]
impl Registrar for Registry {
    async fn register(&self, instance: Instance) -> Result<Registration> {
        let within = self.settings().register_timeout;
        let registration = self.keep_registered(instance);
        let failed = match tokio::time::timeout(within, registration.settled(Error::is_permanent)).await {
            Ok(Ok(())) => return Ok(registration),
            Ok(Err(error)) => error,
            Err(_) => {
                let what = format!(
                    "not registered within {within:?}: {}/{}",
                    registration.service(),
                    registration.id()
                );
                let error = Error::new(ErrorKind::Timeout, what);
                match registration.status() {
                    Status::Pending { error: Some(cause) } => error.with_source(cause),
                    _ => error,
                }
            }
        };
        // Nothing is to keep running; what may have been written is withdrawn if that can be done at once.
        let _ = registration.deregister_within(Duration::from_millis(500)).await;
        Err(failed)
    }
}

impl Instancer for Registry {
    fn watch(&self, service: &ServiceName) -> InstanceWatch {
        self.0.watch(service)
    }
}

impl Registry {
    /// [`Registrar::register`], without the trait in scope.
    ///
    /// # Errors
    /// As [`Registrar::register`].
    pub async fn register(&self, instance: Instance) -> Result<Registration> {
        Registrar::register(self, instance).await
    }

    /// [`Instancer::watch`], without the trait in scope.
    #[must_use]
    pub fn watch(&self, service: &ServiceName) -> InstanceWatch {
        Instancer::watch(self, service)
    }
}

impl Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A [`Core`] without its protocol's type.
#[async_trait]
pub(crate) trait AnyCore: Debug + Send + Sync {
    fn keep_registered(&self, instance: Instance) -> Registration;
    fn watch(&self, service: &ServiceName) -> InstanceWatch;
    async fn services(&self) -> Result<Vec<ServiceName>>;
    async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()>;
    async fn check(&self) -> Report;
    async fn close(&self, within: Duration) -> Result<()>;
    fn settings(&self) -> &Settings;
    fn forget_watch(&self, service: &ServiceName);
    #[cfg(feature = "testing")]
    fn source(&self, service: &ServiceName) -> Box<dyn crate::Source>;
    #[cfg(feature = "testing")]
    fn lease(&self, instance: &Instance) -> Box<dyn crate::Lease>;
}

struct Core<P> {
    this: Weak<Self>,
    name: String,
    protocol: P,
    runtime: Handle,
    tasks: TaskTracker,
    /// Of the lease drivers, for a close that ran out of time. Those of watches are with their [`SharedWatch`].
    aborts: Mutex<Vec<AbortHandle>>,
    watches: Mutex<HashMap<ServiceName, Weak<SharedWatch>>>,
    /// The time by which everything is to have ended, once it is to end.
    closing: watch::Sender<Option<Instant>>,
    pace: Arc<Pace>,
}

impl<P: Protocol> Core<P> {
    /// What keeps this alive. `this` is only asked for in methods, so somebody holds a strong one.
    fn keep(&self) -> Option<Keep> {
        self.this.upgrade().map(|core| core as Keep)
    }
}

#[async_trait]
impl<P: Protocol> AnyCore for Core<P> {
    fn keep_registered(&self, instance: Instance) -> Registration {
        let settings = self.protocol.settings().clone();
        let lease = self.protocol.lease(&instance);
        let (commands, inbox) = mpsc::unbounded_channel();
        let (desired, wanted) = watch::channel(Arc::new(instance));
        let (status, told) = watch::channel(Status::Pending { error: None });
        let inbox = Inbox::new(inbox, self.closing.subscribe(), settings.drain, desired);
        let driver = LeaseDriver::new(lease, settings.clone(), Arc::clone(&self.pace), status, inbox);
        let task = self.tasks.spawn_on(driver.run(), &self.runtime);
        let mut aborts = self.aborts.lock().unwrap_or_else(PoisonError::into_inner);
        aborts.retain(|abort| !abort.is_finished());
        aborts.push(task.abort_handle());
        Registration::new(wanted, told, commands, settings, self.keep())
    }

    fn watch(&self, service: &ServiceName) -> InstanceWatch {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let found = watches.get(service).and_then(Weak::upgrade);
        // One whose driver has ended is of a backend that panicked, or of a registry that was closed: it is no use
        // to a newcomer, but for its last set.
        let closing = self.closing.borrow().is_some();
        let ended = |shared: &SharedWatch| shared.task.as_ref().is_some_and(AbortHandle::is_finished);
        if let Some(shared) = found.as_ref().filter(|shared| closing || !ended(shared)) {
            return InstanceWatch::new(Arc::clone(shared));
        }
        let (publisher, snapshots) = watch::channel(Arc::new(Snapshot::pending(service.clone())));
        // A watch that begins after the end: the publisher is dropped, so that it says so.
        let task = (!closing).then(|| {
            let source = self.protocol.source(service);
            let driver =
                WatchDriver::new(service.clone(), source, self.protocol.settings().clone(), publisher);
            self.tasks.spawn_on(driver.run(), &self.runtime).abort_handle()
        });
        let shared = Arc::new(SharedWatch { snapshots, task, service: service.clone(), core: self.keep() });
        watches.insert(service.clone(), Arc::downgrade(&shared));
        drop(watches);
        // Only now: if nobody else holds it any more, its end looks for itself among the watches.
        drop(found);
        InstanceWatch::new(shared)
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.protocol.services().await
    }

    async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        self.protocol.remove(service, id).await
    }

    async fn check(&self) -> Report {
        self.protocol.check().await
    }

    async fn close(&self, within: Duration) -> Result<()> {
        let by = from_now(within);
        self.closing.send_if_modified(|closing| closing.is_none() && closing.replace(by).is_none());
        let watches: Vec<_> = {
            let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches.values().filter_map(Weak::upgrade).collect()
        };
        watches.iter().for_each(|watch| watch.stop());
        self.tasks.close();
        // Whoever has no time left tries once all the same.
        if tokio::time::timeout_at(by + LAST_TRY * 2, self.tasks.wait()).await.is_ok() {
            return Ok(());
        }
        let aborts = std::mem::take(&mut *self.aborts.lock().unwrap_or_else(PoisonError::into_inner));
        let late = aborts.iter().filter(|abort| !abort.is_finished()).count();
        aborts.iter().for_each(AbortHandle::abort);
        Err(Error::new(
            ErrorKind::Timeout,
            format!(
                "registry {self:?} did not close within {within:?}: {late} registrations broken off, which expire"
            ),
        ))
    }

    fn settings(&self) -> &Settings {
        self.protocol.settings()
    }

    #[cfg(feature = "testing")]
    fn source(&self, service: &ServiceName) -> Box<dyn crate::Source> {
        Box::new(self.protocol.source(service))
    }

    #[cfg(feature = "testing")]
    fn lease(&self, instance: &Instance) -> Box<dyn crate::Lease> {
        Box::new(self.protocol.lease(instance))
    }

    fn forget_watch(&self, service: &ServiceName) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        // A new one may have taken its place meanwhile.
        if watches.get(service).is_some_and(|watch| watch.strong_count() == 0) {
            watches.remove(service);
        }
    }
}

#[cfg(feature = "testing")]
impl Registry {
    pub(crate) fn core(&self) -> &dyn AnyCore {
        &*self.0
    }
}

impl<P> Debug for Core<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl<P> Drop for Core<P> {
    /// The last handle, guard and watch are gone, and so are all tasks but those that nobody can reach.
    fn drop(&mut self) {
        let aborts = self.aborts.get_mut().unwrap_or_else(PoisonError::into_inner);
        aborts.iter().for_each(AbortHandle::abort);
    }
}

/// What all subscribers of one service share: the guard of its driver.
pub(crate) struct SharedWatch {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    task: Option<AbortHandle>,
    service: ServiceName,
    core: Option<Keep>,
}

impl SharedWatch {
    pub(crate) fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        // Never marked as seen here, so that a new subscriber is told of what there already is.
        self.snapshots.clone()
    }

    fn stop(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Drop for SharedWatch {
    fn drop(&mut self) {
        self.stop();
        if let Some(core) = &self.core {
            core.forget_watch(&self.service);
        }
    }
}

impl Debug for SharedWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}
