//! [`Builder`]: the one background task of an endpointer. The entry is [`Builder::run`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use callsign_core::{InstanceWatch, ServiceName};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::Board;
use super::roster::{Job, Roster};
use crate::error::{BoxError, chain};
use crate::factory::{Factory, Key, Lifeline, News as Told};
use crate::ready::{Lack, ReadySet};
use crate::slot::Link;

/// From this many endpoints on, a set that grows is published at most once in [`GROWTH`]: ten thousand
/// endpoints must not make ten thousand sets of ten thousand.
const LARGE: usize = 64;
const GROWTH: Duration = Duration::from_millis(10);
/// How often it is decided at most who is left out: where all fail, each call asks for it.
const LOOK: Duration = Duration::from_millis(10);

/// What came of a dial: the link, or why there is none.
type Dialled<E> = (Key, Result<Link<E>, BoxError>);

pub(super) struct Builder<E, F> {
    pub(super) watch: InstanceWatch,
    pub(super) factory: Arc<F>,
    pub(super) board: Arc<Board<E>>,
    pub(super) roster: Roster<E>,
    pub(super) connect_timeout: Duration,
    pub(super) concurrent_dials: usize,
    pub(super) told: mpsc::UnboundedReceiver<Told>,
    pub(super) tell: mpsc::UnboundedSender<Told>,
    /// Raised when somebody may have to be left out; `None` where nobody ever is.
    pub(super) suspect: Option<Arc<AtomicBool>>,
    pub(super) _end: End<E>,
}

/// What has happened since the last publish.
#[derive(Default)]
struct News {
    any: bool,
    /// Something may have to leave the set, which is not put off.
    urgent: bool,
    /// Somebody fails.
    suspected: bool,
}

impl<E, F> Builder<E, F>
where
    E: Send + Sync + 'static,
    F: Factory<E>,
{
    /// Runs until it is dropped: the endpointer holds the guard. Everything that it holds ends with it.
    pub(super) async fn run(mut self) {
        // Aborted when dropped.
        let mut dials: JoinSet<Dialled<E>> = JoinSet::new();
        let mut keys: HashMap<Id, Key> = HashMap::new();
        let mut open = true;
        let mut not_before = Instant::now();
        let mut news = News { any: true, urgent: true, suspected: false };
        let (mut look_at, mut look_not_before) = (None, Instant::now());
        let first = self.watch.snapshot();
        self.roster.apply(&first, Instant::now());
        loop {
            while dials.len() < self.concurrent_dials {
                let Some(job) = self.roster.next_dial() else { break };
                let key = job.key.clone();
                let dial = dials.spawn(self.dial(job));
                keys.insert(dial.id(), key.clone());
                self.roster.begun(&key, dial);
            }
            if look_at.is_some_and(|at| at <= Instant::now()) {
                // Before the statistics are read, so that whatever comes after is told again.
                if let Some(suspect) = &self.suspect {
                    suspect.store(false, Ordering::Release);
                }
                look_at = None;
                look_not_before = Instant::now() + LOOK;
                news = News { any: true, urgent: true, suspected: true };
            }
            if news.any && (news.urgent || Instant::now() >= not_before) {
                let size = self.publish(std::mem::take(&mut news).suspected);
                not_before = Instant::now() + if size < LARGE { Duration::ZERO } else { GROWTH };
            }
            let publish_at = news.any.then_some(not_before);
            let wake_at = [publish_at, look_at, self.roster.next_wake()].into_iter().flatten().min();
            tokio::select! {
                changed = self.watch.changed(), if open => match changed {
                    Ok(snapshot) => {
                        // Where nothing is ready there is something to say about why in any case.
                        if self.roster.apply(&snapshot, Instant::now()) || self.board.set.load().is_empty() {
                            (news.any, news.urgent) = (true, true);
                        }
                    }
                    Err(_) => {
                        open = false;
                        self.roster.close();
                        (news.any, news.urgent) = (true, true);
                    }
                },
                Some(told) = self.told.recv() => {
                    let mut told = Some(told);
                    while let Some(one) = told {
                        match one {
                            // What is cut is not picked any more, whether or not it is in the set.
                            Told::Cut(key) => {
                                self.cut(&key);
                                news.any = true;
                            }
                            Told::Suspect => look_at = Some(look_not_before.max(Instant::now())),
                        }
                        told = self.told.try_recv().ok();
                    }
                }
                Some(dialled) = dials.join_next_with_id(), if !dials.is_empty() => {
                    self.dialled(dialled, &mut keys);
                    while let Some(dialled) = dials.try_join_next_with_id() {
                        self.dialled(dialled, &mut keys);
                    }
                    news.any = true;
                }
                () = until(wake_at) => {}
            }
            if self.roster.wake(Instant::now()) {
                (news.any, news.urgent) = (true, true);
            }
        }
    }

    /// A dial, bounded in time. It is a task so that dials run beside each other.
    fn dial(&self, job: Job) -> impl Future<Output = Dialled<E>> + Send + use<E, F> {
        let (factory, within) = (Arc::clone(&self.factory), self.connect_timeout);
        let lifeline =
            Lifeline::new(job.key.clone(), Arc::clone(&job.stats), self.tell.clone(), self.suspect.clone());
        async move {
            let made = factory.make(Arc::clone(&job.instance), lifeline.clone());
            let made = match timeout(within, made).await {
                Ok(made) => made,
                Err(_) => Err(format!("no connection within {within:?}").into()),
            };
            let link = |endpoint| Link::new(endpoint, lifeline, job.stats, job.serial, job.instance);
            (job.key, made.map(link))
        }
    }

    fn dialled(&mut self, dialled: Result<(Id, Dialled<E>), JoinError>, keys: &mut HashMap<Id, Key>) {
        let (key, made) = match dialled {
            Ok((id, dialled)) => {
                keys.remove(&id);
                dialled
            }
            Err(error) => match keys.remove(&error.id()) {
                Some(key) if error.is_panic() => (key, Err("the factory panicked".into())),
                // It was stopped, and nobody waits for it.
                _ => return,
            },
        };
        match &made {
            Ok(_) => debug!(instance = %key.id, "connected"),
            Err(error) => debug!(instance = %key.id, error = %chain(&**error), "cannot connect"),
        }
        self.roster.dialled(&key, made, Instant::now());
    }

    fn cut(&mut self, key: &Key) {
        debug!(instance = %key.id, "connection closed");
        self.roster.cut(key, Instant::now());
    }

    /// Publishes if there is a change, and returns how many endpoints are ready.
    fn publish(&mut self, suspected: bool) -> usize {
        self.roster.judge(suspected, Instant::now());
        let set = self.roster.ready_set();
        let size = set.len();
        self.board.publish(set);
        self.roster.published();
        size
    }
}

/// Tells when it is dropped that no endpoint will come any more: it may be the runtime that ends, and somebody may
/// wait for one.
pub(super) struct End<E> {
    pub(super) board: Arc<Board<E>>,
    pub(super) service: ServiceName,
}

impl<E> Drop for End<E> {
    fn drop(&mut self) {
        self.board.publish(ReadySet::empty(self.service.clone(), Lack::Closed));
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
