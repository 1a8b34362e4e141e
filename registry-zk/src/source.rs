//! [`ZkSource`]: follows one service, by one persistent and recursive watch of its node.
//!
//! An event says which node to read, so that a change among ten thousand costs one read. Such a watch replays nothing
//! that it missed, and the client library does not set it again after a reconnect: each reconnect makes a new one, and
//! lists. A round that half fails is discarded whole.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Error, ErrorKind, Result, Source, Update};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;
use zookeeper_client::{AddWatchMode, Client, Error as Said, EventType, PersistentWatcher, WatchedEvent};

use crate::index::{Index, Node, Read};
use crate::session::{Session, User, settled};

/// How long a lost connection may take to return before the registry counts as unreadable.
const RETURN: Duration = Duration::from_secs(1);
/// Reads that are under way at once.
pub(crate) const AT_ONCE: usize = 500;

/// What is known, and how news of it comes.
enum Cursor {
    /// Nothing can be built upon: to be listed.
    Unlisted,
    Watched(Watched),
    /// The connection is lost, and may return by this time.
    Broken {
        client: Client,
        by: Instant,
    },
}

struct Watched {
    client: Client,
    watchers: Vec<PersistentWatcher>,
}

/// However seldom it is to be compared: `Duration::MAX` is no moment.
const SELDOMEST: Duration = Duration::from_secs(86_400);

pub(crate) struct ZkSource {
    session: Arc<Session>,
    index: Index,
    cursor: Cursor,
    /// When to compare what is known with what there is, and how often.
    check_at: Instant,
    check: Duration,
    rng: fastrand::Rng,
    _user: User,
}

impl std::fmt::Debug for ZkSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZkSource").field("service", self.index.service()).finish_non_exhaustive()
    }
}

/// What waiting ended with.
enum Heard {
    Events(Vec<WatchedEvent>),
    CheckDue,
}

impl ZkSource {
    pub(crate) fn new(session: Arc<Session>, index: Index, check: Duration, rng: fastrand::Rng) -> Self {
        let user = User::new(&session);
        Self { session, index, cursor: Cursor::Unlisted, check_at: Instant::now(), check, rng, _user: user }
    }

    fn what(&self, exchange: &str) -> String {
        format!("{exchange} of {}", self.index.service())
    }

    /// Watches first and reads then, so that nothing falls between.
    async fn list(&mut self) -> Result<Update> {
        let client = self.session.client().await?;
        let (watching, listing) = (self.what("watch"), self.what("list"));
        let (mut watchers, mut nodes) = (Vec::new(), Vec::new());
        for (dir, path) in self.index.dirs().iter().enumerate() {
            let watch = client.watch(path, AddWatchMode::PersistentRecursive);
            watchers.push(self.session.ask(&watching, watch).await?);
            match self.session.asked(&listing, client.list_children(path)).await? {
                Ok(names) => nodes.extend(names.into_iter().map(|name| Node { dir, name })),
                Err(Said::NoNode) => {}
                Err(error) => return Err(self.session.said(&listing, &error)),
            }
        }
        let mut listing = self.index.anew();
        for some in nodes.chunks(AT_ONCE) {
            for (node, read) in self.read(&client, some.to_vec()).await? {
                listing.set(&node, read);
            }
        }
        let (instances, index) = listing.finish();
        self.permitted(&index)?;
        self.index = index;
        self.cursor = Cursor::Watched(Watched { client, watchers });
        self.check_soon();
        Ok(Update::Full(instances))
    }

    /// Reads nodes, all at once. One that we may not read is no reason to know nothing of the others.
    async fn read(&self, client: &Client, nodes: Vec<Node>) -> Result<Vec<(Node, Read)>> {
        let what = self.what("read of an instance");
        let asked: Vec<_> =
            nodes.into_iter().map(|node| (client.get_data(&self.index.path(&node)), node)).collect();
        let mut read = Vec::with_capacity(asked.len());
        for (answer, node) in asked {
            let said = |error| self.session.said(&self.index.path(&node), &error);
            let came = match self.session.asked(&what, answer).await? {
                Ok((data, _)) => Read::Data(data),
                Err(Said::NoNode) => Read::Gone,
                Err(error @ Said::NoAuth) => Read::Refused(said(error).to_string()),
                Err(error) => return Err(said(error)),
            };
            read.push((node, came));
        }
        Ok(read)
    }

    /// That not all nodes are closed to us: who may read none of them has the wrong password, or no right to look.
    fn permitted(&self, index: &Index) -> Result<()> {
        index.refusal().map_or(Ok(()), |why| Err(Error::new(ErrorKind::PermissionDenied, why)))
    }

    fn check_soon(&mut self) {
        self.check_at = Instant::now() + self.check.min(SELDOMEST).mul_f64(0.8 + 0.4 * self.rng.f64());
    }

    /// Whether there are as many nodes as are known, and we may still look.
    async fn agrees(&self, client: &Client) -> Result<bool> {
        let what = self.what("check");
        for (dir, path) in self.index.dirs().iter().enumerate() {
            let stat = self.session.ask(&what, client.check_stat(path)).await?;
            let there = stat.map_or(0, |stat| usize::try_from(stat.num_children).unwrap_or(0));
            if there != self.index.known(dir) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes events in; `false` if they say that the connection is lost.
    fn take(&mut self, events: Vec<WatchedEvent>) -> bool {
        for event in events {
            if event.event_type == EventType::Session {
                return false;
            }
            self.index.changed(&event.path);
        }
        true
    }

    /// Waits for the next update of what is watched; `None` if the cursor has changed.
    async fn follow(&mut self) -> Result<Option<Update>> {
        let Cursor::Watched(watched) = &mut self.cursor else { return Ok(None) };
        let client = watched.client.clone();
        if self.index.is_settled() {
            let heard = tokio::select! {
                biased;
                events = heard(&mut watched.watchers) => Heard::Events(events),
                () = sleep_until(self.check_at) => Heard::CheckDue,
            };
            match heard {
                Heard::Events(events) => {
                    if !self.take(events) {
                        self.cursor = Cursor::Broken { client, by: Instant::now() + RETURN };
                        return Ok(None);
                    }
                }
                Heard::CheckDue => {
                    self.session.tidy(&client).await?;
                    let agrees = self.agrees(&client).await?;
                    self.check_soon();
                    let Cursor::Watched(watched) = &mut self.cursor else { return Ok(None) };
                    // What happened before the answer has come before it.
                    let late = heard_by_now(&mut watched.watchers);
                    let quiet = late.is_empty();
                    if !self.take(late) {
                        self.cursor = Cursor::Broken { client, by: Instant::now() + RETURN };
                    } else if quiet && !agrees {
                        debug!(service = %self.index.service(), "ZooKeeper has other nodes than are known; listing anew");
                        self.cursor = Cursor::Unlisted;
                    }
                    return Ok(None);
                }
            }
        }
        // What is read is unread no more only once it is taken in: this may be dropped at any await.
        while let Some(some) = self.index.unread(AT_ONCE) {
            for (node, read) in self.read(&client, some).await? {
                self.index.set(&node, read);
            }
        }
        self.permitted(&self.index)?;
        Ok(self.index.news())
    }
}

#[async_trait]
impl Source for ZkSource {
    async fn next(&mut self) -> Result<Update> {
        loop {
            match &self.cursor {
                // Apart: a future that holds a list under way is large, and this one is made for every change.
                Cursor::Unlisted => return Box::pin(self.list()).await,
                Cursor::Broken { client, by } => {
                    let returned = timeout_at(*by, settled(client, &mut client.state_watcher())).await;
                    let hosts = self.session.hosts();
                    let error = match returned {
                        Ok(true) => None,
                        // It has forgotten us, and so it may have others: that is no moment to believe that they left.
                        Ok(false) => Some(Error::new(
                            ErrorKind::Unavailable,
                            format!("ZooKeeper at {hosts}: the session ended, and a new one is opened"),
                        )),
                        Err(_) => Some(self.session.disconnected()),
                    };
                    self.cursor = Cursor::Unlisted;
                    if let Some(error) = error {
                        return Err(error);
                    }
                }
                Cursor::Watched(_) => match self.follow().await {
                    Ok(Some(update)) => return Ok(update),
                    Ok(None) => {}
                    Err(error) => {
                        self.cursor = Cursor::Unlisted;
                        return Err(error);
                    }
                },
            }
        }
    }

    fn relist(&mut self) {
        self.cursor = Cursor::Unlisted;
    }

    fn skipped(&self) -> usize {
        self.index.skipped()
    }
}

/// Waits for events, and takes all that there are. Cancel-safe.
async fn heard(watchers: &mut [PersistentWatcher]) -> Vec<WatchedEvent> {
    let mut events = Vec::new();
    poll_fn(|cx| {
        for watcher in &mut *watchers {
            while let Poll::Ready(event) = pin!(watcher.changed()).poll(cx) {
                let session = event.event_type == EventType::Session;
                events.push(event);
                // After the last one of a session it must not be asked again.
                if session {
                    return Poll::Ready(());
                }
            }
        }
        if events.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    events
}

/// Events that have come already.
fn heard_by_now(watchers: &mut [PersistentWatcher]) -> Vec<WatchedEvent> {
    let mut heard = pin!(heard(watchers));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match heard.as_mut().poll(&mut context) {
        Poll::Ready(events) => events,
        Poll::Pending => Vec::new(),
    }
}
