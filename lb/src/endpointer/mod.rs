//! [`Endpointer`]: keeps an endpoint for every live instance of a service. Go kit's `sd.Endpointer`.
//!
//! One background task follows the watch, whether or not there are calls. It makes endpoints of new instances,
//! several at a time, tries again what failed, lets go of what left, and publishes what is ready as an
//! immutable [`ReadySet`].

mod backoff;
mod builder;
mod entry;
mod roster;
mod seen;

use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use callsign_core::{Instance, InstanceWatch, ServiceName};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use self::builder::{Builder, End};
use self::roster::{BACKOFF, Roster};
use crate::ejection::Ejection;
use crate::factory::Factory;
use crate::ready::{Lack, ReadySet};

pub(crate) use self::backoff::Backoff;

type Filter = Box<dyn Fn(&Instance) -> bool + Send + Sync>;

/// Keeps an endpoint for every live instance of a service. Clones are handles of the same one; when the last
/// handle and the last [`Balancer`](crate::Balancer) on it are gone, its task ends and all endpoints are
/// dropped, each when the calls on it have ended.
///
/// - An instance that stays keeps its endpoint, also when its weight, state or metadata change. One at another
///   address is another endpoint.
/// - One that leaves is not picked from that moment on; its endpoint is dropped when the calls on it have
///   ended.
/// - A failed [`Factory`] is asked again after 0 to 100 ms, then in pauses that grow to 5 s.
/// - An endpoint that is [reported closed](crate::Picked::report_closed), or [tells so](crate::Lifeline::cut)
///   itself, is made anew.
/// - Whatever happens to the registry, endpoints stay as long as the watch lists their instances.
pub struct Endpointer<E>(Arc<Inner<E>>);

struct Inner<E> {
    board: Arc<Board<E>>,
    service: ServiceName,
    _task: AbortOnDropHandle<()>,
}

impl<E: Send + Sync + 'static> Endpointer<E> {
    /// Follows a watch and makes endpoints by `factory`, with the defaults of
    /// [`builder`](Self::builder). Its task runs on the current Tokio runtime.
    ///
    /// # Panics
    /// Outside a Tokio runtime, as [`Handle::current`] does.
    pub fn new(watch: InstanceWatch, factory: impl Factory<E>) -> Self {
        Self::builder(watch, factory).build()
    }

    /// An endpointer with other settings.
    pub fn builder<F: Factory<E>>(watch: InstanceWatch, factory: F) -> EndpointerBuilder<E, F> {
        EndpointerBuilder {
            watch,
            factory,
            connect_timeout: Duration::from_secs(5),
            concurrent_dials: 32,
            backoff: BACKOFF,
            filter: Box::new(|_| true),
            ejection: None,
            rng: fastrand::Rng::new(),
            endpoint: std::marker::PhantomData,
        }
    }
}

impl<E> Endpointer<E> {
    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.0.service
    }

    /// What can be picked now, without waiting.
    #[must_use]
    pub fn ready_set(&self) -> Arc<ReadySet<E>> {
        self.0.board.set.load_full()
    }

    /// Waits until `wanted` holds for the ready set, and returns that; at once if it does. Waits for as long
    /// as it takes: put a timeout around it. Cancel-safe.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&ReadySet<E>) -> bool) -> Arc<ReadySet<E>> {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            let set = self.ready_set();
            // The sender lives as long as `self`.
            if wanted(&set) || changes.changed().await.is_err() {
                return set;
            }
        }
    }

    /// Counts the published sets.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.board.changes.subscribe()
    }

    /// Shows a follower the present set, then each that comes, for as long as it is wanted. Later ones on the
    /// builder's task, before the set is announced.
    pub(crate) fn follow(&self, follower: Box<dyn Follower<E>>) {
        self.0.board.follow(follower);
    }
}

impl<E> Clone for Endpointer<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> Debug for Endpointer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpointer").field("ready", &self.ready_set()).finish()
    }
}

/// Whoever works something out of each new set.
pub(crate) trait Follower<E>: Send {
    fn is_wanted(&self) -> bool;
    fn see(&mut self, set: &Arc<ReadySet<E>>);
}

/// Where the builder publishes and handles read.
struct Board<E> {
    set: ArcSwap<ReadySet<E>>,
    followers: Mutex<Vec<Box<dyn Follower<E>>>>,
    changes: watch::Sender<u64>,
}

impl<E> Board<E> {
    fn publish(&self, set: ReadySet<E>) {
        if self.set.load().same(&set) {
            return;
        }
        let set = Arc::new(set);
        // Held to the end, so that a follower who joins now misses nothing. They come first: who sees the new set can
        // pick from it.
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| follower.is_wanted());
        for follower in followers.iter_mut() {
            // A policy of somebody else's must not end discovery.
            if catch_unwind(AssertUnwindSafe(|| follower.see(&set))).is_err() {
                warn!(service = %set.service(), "a policy panicked over a new set: its balancer keeps the last one");
            }
        }
        self.set.store(set);
        drop(followers);
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn follow(&self, mut follower: Box<dyn Follower<E>>) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|follower| follower.is_wanted());
        follower.see(&self.set.load_full());
        followers.push(follower);
    }
}

/// Settings of an [`Endpointer`] that is to be.
pub struct EndpointerBuilder<E, F> {
    watch: InstanceWatch,
    factory: F,
    connect_timeout: Duration,
    concurrent_dials: usize,
    backoff: Backoff,
    filter: Filter,
    ejection: Option<Ejection>,
    rng: fastrand::Rng,
    endpoint: std::marker::PhantomData<fn() -> E>,
}

impl<E, F> EndpointerBuilder<E, F>
where
    E: Send + Sync + 'static,
    F: Factory<E>,
{
    /// How long the factory may take for one endpoint before that counts as failed; 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, within: Duration) -> Self {
        self.connect_timeout = within;
        self
    }

    /// How many endpoints are made at the same time, 1 at least; 32.
    #[must_use]
    pub fn concurrent_dials(mut self, dials: usize) -> Self {
        self.concurrent_dials = dials.max(1);
        self
    }

    /// The bounds of the first and of the longest pause after a failed dial, 1 ms at least; 100 ms and 5 s. Each pause
    /// is anything between nothing and its bound, which doubles from one failure to the next.
    #[must_use]
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        // A dial that is refused at once must not be tried again without a pause.
        let first = first.max(Backoff::LEAST);
        self.backoff = Backoff { first, most: most.max(first) };
        self
    }

    /// Which instances are used at all; all. It is asked when an instance comes, and when it is registered with other
    /// contents.
    #[must_use]
    pub fn filter(mut self, wanted: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Box::new(wanted);
        self
    }

    /// By which rule instances that fail are left out for a while; never. It takes calls that
    /// [report](crate::Picked::report) what became of them.
    #[must_use]
    pub fn ejection(mut self, rule: impl Into<Ejection>) -> Self {
        self.ejection = Some(rule.into());
        self
    }

    /// Fixes the random numbers of the pauses, for tests.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.rng = fastrand::Rng::with_seed(seed);
        self
    }

    /// Starts it, on the current Tokio runtime.
    ///
    /// # Panics
    /// Outside a Tokio runtime, as [`Handle::current`] does.
    pub fn build(self) -> Endpointer<E> {
        let runtime = Handle::current();
        let service = self.watch.service();
        let (tell, told) = mpsc::unbounded_channel();
        let board = Arc::new(Board {
            set: ArcSwap::from_pointee(ReadySet::empty(service.clone(), Lack::Pending(None))),
            followers: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let builder = Builder {
            watch: self.watch,
            factory: Arc::new(self.factory),
            board: Arc::clone(&board),
            roster: Roster::new(service.clone(), self.filter, self.backoff, self.rng)
                .with_ejection(self.ejection),
            connect_timeout: self.connect_timeout,
            concurrent_dials: self.concurrent_dials,
            told,
            tell,
            suspect: self.ejection.filter(Ejection::minds_suspects).map(|_| Arc::default()),
            _end: End { board: Arc::clone(&board), service: service.clone() },
        };
        let task = AbortOnDropHandle::new(runtime.spawn(builder.run()));
        Endpointer(Arc::new(Inner { board, service, _task: task }))
    }
}

impl<E, F> Debug for EndpointerBuilder<E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointerBuilder")
            .field("watch", &self.watch)
            .field("connect_timeout", &self.connect_timeout)
            .field("concurrent_dials", &self.concurrent_dials)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}
