//! A scripted backend for the drivers' own tests: what it answers is said by the test, what it was asked is
//! kept with its time. Runs on the paused clock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::backend::{Claim, Kept, Lease, Loss, Protocol, Source, Terms, Update};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, InstanceId, ServiceName, State};
use crate::registry::Registry;
use crate::report::{Finding, Report};
use crate::settings::Settings;

/// What a lease was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Take,
    Again,
    Renew,
    Write(State, u32),
    Verify,
    Release,
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Ok,
    Lost,
    Superseded,
    Err(ErrorKind),
    /// It is done, and the answer is an error all the same.
    Done(ErrorKind),
    Hang,
}

type Answers = Box<dyn FnMut(Call) -> Reply + Send>;

/// The scripted registry behind all leases and sources of one test.
pub(crate) struct World {
    start: Instant,
    ttl: Option<Duration>,
    log: Mutex<Vec<(Duration, Call)>>,
    answers: Mutex<Answers>,
    /// Makes `lost` resolve.
    pub(crate) lost: Notify,
    lost_as: Mutex<Loss>,
    /// What the entry holds. Only for tests with one lease.
    holds: Mutex<Option<Instance>>,
    busy: AtomicBool,
    pub(crate) leases: AtomicUsize,
    pub(crate) sources: AtomicUsize,
    pub(crate) sources_made: AtomicUsize,
    pub(crate) relists: AtomicUsize,
    /// How often `next` was called, and how often it was dropped before it ended.
    pub(crate) reads: AtomicUsize,
    pub(crate) broken_off: AtomicUsize,
    feed: Mutex<Option<mpsc::UnboundedReceiver<Feed>>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// What a source reads next.
#[derive(Debug)]
pub(crate) enum Feed {
    Read(Update),
    Fail(ErrorKind),
    Panic,
    /// Reads it after so long.
    Slow(Duration, Update),
}

/// Sources of unit tests are always read through this.
pub(crate) type Feeder = mpsc::UnboundedSender<Feed>;

impl World {
    pub(crate) fn new(
        ttl: Option<Duration>,
        answers: impl FnMut(Call) -> Reply + Send + 'static,
    ) -> Arc<Self> {
        Self::with_feed(ttl, Box::new(answers)).0
    }

    pub(crate) fn fed() -> (Arc<Self>, Feeder) {
        Self::with_feed(None, Box::new(|_| Reply::Ok))
    }

    fn with_feed(ttl: Option<Duration>, answers: Answers) -> (Arc<Self>, Feeder) {
        let (feeder, feed) = mpsc::unbounded_channel();
        let world = Self {
            start: Instant::now(),
            ttl,
            log: Mutex::default(),
            answers: Mutex::new(answers),
            lost: Notify::new(),
            lost_as: Mutex::new(Loss::Lost),
            holds: Mutex::default(),
            busy: AtomicBool::new(false),
            leases: AtomicUsize::new(0),
            sources: AtomicUsize::new(0),
            sources_made: AtomicUsize::new(0),
            relists: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            broken_off: AtomicUsize::new(0),
            feed: Mutex::new(Some(feed)),
        };
        (Arc::new(world), feeder)
    }

    pub(crate) fn open(self: &Arc<Self>, mut settings: Settings) -> Registry {
        settings.seed.get_or_insert(11);
        let protocol = Scripted { world: Arc::clone(self), settings };
        Registry::new("script:", protocol).unwrap()
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Every call so far, with its time.
    pub(crate) fn log(&self) -> Vec<(Duration, Call)> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.log().into_iter().map(|(_, call)| call).collect()
    }

    pub(crate) fn count(&self, call: Call) -> usize {
        self.calls().into_iter().filter(|known| *known == call).count()
    }

    /// Says of its own accord that the entry is lost, or another's.
    pub(crate) fn lose(&self, as_what: Loss) {
        *self.lost_as.lock().unwrap() = as_what;
        self.lost.notify_one();
    }

    async fn answer(&self, call: Call) -> Reply {
        assert!(!self.busy.swap(true, Ordering::SeqCst), "calls of a lease overlap");
        let _free = Free(self);
        self.log.lock().unwrap().push((self.now(), call));
        let reply = (self.answers.lock().unwrap())(call);
        if reply == Reply::Hang {
            std::future::pending::<()>().await;
        }
        // An exchange takes a moment, in which a command can come.
        tokio::time::sleep(Duration::from_millis(1)).await;
        reply
    }

    /// Asks, and if it is done notes what the entry holds from then on.
    async fn kept(&self, call: Call, writes: Option<&Instance>) -> Result<Kept> {
        let reply = self.answer(call).await;
        if let (Reply::Ok | Reply::Done(_), Some(instance)) = (reply, writes) {
            *self.holds.lock().unwrap() = Some(instance.clone());
        }
        match reply {
            Reply::Ok => Ok(Kept::Kept),
            Reply::Lost => Ok(Kept::Lost),
            Reply::Superseded => Ok(Kept::Superseded),
            Reply::Err(kind) | Reply::Done(kind) => Err(Error::new(kind, format!("scripted {kind:?}"))),
            Reply::Hang => unreachable!(),
        }
    }
}

/// One call at a time, also when it is dropped half way. Only for tests with one lease.
struct Free<'a>(&'a World);

impl Drop for Free<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Scripted {
    world: Arc<World>,
    settings: Settings,
}

#[async_trait]
impl Protocol for Scripted {
    type Source = ScriptedSource;
    type Lease = ScriptedLease;

    fn source(&self, _: &ServiceName) -> ScriptedSource {
        self.world.sources.fetch_add(1, Ordering::SeqCst);
        self.world.sources_made.fetch_add(1, Ordering::SeqCst);
        let feed = self.world.feed.lock().unwrap().take();
        ScriptedSource { world: Arc::clone(&self.world), feed }
    }

    fn lease(&self, _: &Instance) -> ScriptedLease {
        self.world.leases.fetch_add(1, Ordering::SeqCst);
        ScriptedLease { world: Arc::clone(&self.world) }
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(Vec::new())
    }

    async fn remove(&self, _: &ServiceName, _: &InstanceId) -> Result<()> {
        Ok(())
    }

    async fn check(&self) -> Report {
        let ok = || Finding::Works(String::new());
        Report::new(ok(), ok(), ok())
    }
}

#[derive(Debug)]
struct ScriptedSource {
    world: Arc<World>,
    feed: Option<mpsc::UnboundedReceiver<Feed>>,
}

struct Reading<'a>(&'a World, bool);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.broken_off.fetch_add(usize::from(!self.1), Ordering::SeqCst);
    }
}

#[async_trait]
impl Source for ScriptedSource {
    async fn next(&mut self) -> Result<Update> {
        self.world.reads.fetch_add(1, Ordering::SeqCst);
        let mut reading = Reading(&self.world, false);
        let Some(feed) = &mut self.feed else { return std::future::pending().await };
        let read = match feed.recv().await {
            Some(Feed::Read(update)) => Ok(update),
            Some(Feed::Slow(pause, update)) => {
                tokio::time::sleep(pause).await;
                Ok(update)
            }
            Some(Feed::Panic) => panic!("scripted"),
            Some(Feed::Fail(kind)) => Err(Error::new(kind, format!("scripted {kind:?}"))),
            None => std::future::pending().await,
        };
        reading.1 = true;
        read
    }

    fn relist(&mut self) {
        self.world.relists.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for ScriptedSource {
    fn drop(&mut self) {
        self.world.sources.fetch_sub(1, Ordering::SeqCst);
        // So that the next watch of the same service reads on.
        *self.world.feed.lock().unwrap() = self.feed.take();
    }
}

#[derive(Debug)]
struct ScriptedLease {
    world: Arc<World>,
}

#[async_trait]
impl Lease for ScriptedLease {
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>> {
        let call = if how == Claim::Take { Call::Take } else { Call::Again };
        Ok(match self.world.kept(call, Some(instance)).await? {
            Kept::Superseded => None,
            _ => Some(Terms { ttl: self.world.ttl }),
        })
    }

    async fn renew(&mut self) -> Result<Kept> {
        self.world.kept(Call::Renew, None).await
    }

    async fn write(&mut self, instance: &Instance) -> Result<Kept> {
        self.world.kept(Call::Write(instance.state(), instance.weight()), Some(instance)).await
    }

    async fn verify(&mut self, instance: &Instance) -> Result<Kept> {
        let kept = self.world.kept(Call::Verify, None).await?;
        let same = self.world.holds.lock().unwrap().as_ref() == Some(instance);
        Ok(if kept == Kept::Kept && !same { Kept::Lost } else { kept })
    }

    async fn lost(&mut self) -> Loss {
        self.world.lost.notified().await;
        *self.world.lost_as.lock().unwrap()
    }

    async fn release(&mut self) -> Result<()> {
        self.world.kept(Call::Release, None).await.map(|_| ())
    }
}

impl Drop for ScriptedLease {
    fn drop(&mut self) {
        self.world.leases.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) fn instance(n: usize) -> Instance {
    Instance::new("s", format!("10.0.0.1:{}", n + 1)).unwrap()
}

pub(crate) fn full(of: impl IntoIterator<Item = usize>) -> Update {
    Update::Full(of.into_iter().map(instance).collect())
}
