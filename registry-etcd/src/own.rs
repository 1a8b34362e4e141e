//! [`OwnKey`]: listens at the key of one registration, so that its loss is known at once and not at the next
//! renewal.
//!
//! Events only say that it is worth looking: what has become of the key is always read. After a break the
//! key is read first and watched from the next revision on, so that nothing falls into the gap.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use callsign_core::{Error, ErrorKind, Kept, Loss, Result};
use etcd_client::{GetOptions, KeyValue, ResponseHeader, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::claimed::{Claimed, Found};
use crate::members::{Link, Members, Repeat};

/// The pause before a watch that broke is opened again, spread by a fifth.
const PAUSE: Duration = Duration::from_secs(1);

/// What opening the watch found.
struct Opened {
    /// The key and the revision of reading it, where it had to be read first.
    read: Option<(Option<Found>, i64)>,
    stream: Box<WatchStream>,
    member: usize,
}

/// Kept in `self` and not on the stack of a call, so that a call that is dropped loses nothing of it.
type Opening = Pin<Box<dyn Future<Output = Result<Opened>> + Send>>;

enum Ear {
    /// Not listening. `from`: the revision up to which the key is known; `None` if it is to be read.
    Closed {
        from: Option<i64>,
        not_before: Instant,
    },
    Opening(Opening),
    Open {
        stream: Box<WatchStream>,
        member: usize,
    },
}

pub(crate) struct OwnKey {
    members: Arc<Members>,
    key: String,
    ear: Ear,
    /// The revision up to which the key is known, by our last write or by reading: older events say nothing new.
    known: i64,
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnKey").field("key", &self.key).field("known", &self.known).finish_non_exhaustive()
    }
}

impl OwnKey {
    pub(crate) fn new(members: Arc<Members>, key: String) -> Self {
        Self { members, key, ear: Ear::Closed { from: None, not_before: Instant::now() }, known: 0 }
    }

    /// The key is about to be written by us: what is being found out about it may be wrong by then.
    pub(crate) fn unsure(&mut self) {
        if !matches!(self.ear, Ear::Open { .. }) {
            self.ear = Ear::Closed { from: None, not_before: Instant::now() };
        }
    }

    /// The key is as we wrote it at this revision.
    pub(crate) fn written(&mut self, revision: i64) {
        self.known = revision;
        if !matches!(self.ear, Ear::Open { .. }) {
            self.ear = Ear::Closed { from: Some(revision), not_before: Instant::now() };
        }
    }

    /// Stops listening.
    pub(crate) fn close(&mut self) {
        self.ear = Ear::Closed { from: None, not_before: Instant::now() };
    }

    /// Resolves when the key is not ours any more. Cancel-safe; a registry that is down is no loss.
    pub(crate) async fn lost(&mut self, claimed: &Claimed) -> Loss {
        loop {
            match &mut self.ear {
                Ear::Closed { from, not_before } => {
                    sleep_until(*not_before).await;
                    let opening = open(Arc::clone(&self.members), self.key.clone(), *from);
                    self.ear = Ear::Opening(Box::pin(opening));
                }
                Ear::Opening(opening) => match opening.await {
                    Ok(Opened { read, stream, member }) => {
                        self.ear = Ear::Open { stream, member };
                        let Some((found, revision)) = read else { continue };
                        // Lower than before, if etcd was wiped.
                        self.known = revision;
                        if let Some(loss) = claimed.judge(found).loss() {
                            self.close();
                            return loss;
                        }
                    }
                    Err(error) => {
                        debug!(key = %self.key, error = %error.chain(), "cannot listen at the own key; trying again");
                        // What is refused is for somebody to mend, and a process may have a thousand keys.
                        self.pause(if error.is_permanent() { PAUSE * 5 } else { PAUSE });
                    }
                },
                Ear::Open { stream, member } => {
                    let (said, member) = (stream.message().await, *member);
                    match said {
                        Ok(Some(said)) if said.canceled() => self.pause(PAUSE),
                        Ok(Some(said)) if self.is_news(&said, claimed) => self.close(),
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => {
                            self.members.bad(member);
                            self.pause(PAUSE);
                        }
                    }
                }
            }
        }
    }

    /// Whether the key may not be as we left it.
    fn is_news(&self, said: &WatchResponse, claimed: &Claimed) -> bool {
        let went_back = (1..self.known).contains(&said.header().map_or(0, ResponseHeader::revision));
        went_back
            || said.events().iter().filter_map(etcd_client::Event::kv).any(|kv| {
                let found = (kv.create_revision() != 0).then(|| Found::of(kv));
                kv.mod_revision() > self.known && claimed.judge(found) != Kept::Kept
            })
    }

    fn pause(&mut self, pause: Duration) {
        let pause = pause.mul_f64(0.8 + 0.4 * fastrand::f64());
        self.ear = Ear::Closed { from: None, not_before: Instant::now() + pause };
    }
}

async fn open(members: Arc<Members>, key: String, from: Option<i64>) -> Result<Opened> {
    let (read, from) = match from {
        Some(from) => (None, from),
        None => {
            let (kv, revision) = read(&members, &key).await?;
            (Some((kv.as_ref().map(Found::of), revision)), revision)
        }
    };
    let watch = |mut link: Link| {
        let (key, options) = (key.as_str(), WatchOptions::new().with_start_revision(from + 1));
        async move { link.watch.watch(key, Some(options)).await }
    };
    let (member, stream) = members.ask("watch of the own key", Repeat::Safe, watch).await?;
    Ok(Opened { read, stream: Box::new(stream), member })
}

/// The key as a quorum knows it, and the revision of that.
pub(crate) async fn read(members: &Members, key: &str) -> Result<(Option<KeyValue>, i64)> {
    let get = |mut link: Link| async move { link.kv.get(key, Some(GetOptions::new())).await };
    let (member, mut got) = members.ask("read of the own key", Repeat::Safe, get).await?;
    let Some(header) = got.take_header() else {
        let what = format!("etcd at {} answered a read without a header", members.address(member));
        return Err(Error::new(ErrorKind::Malformed, what));
    };
    Ok((got.take_kvs().into_iter().next(), header.revision()))
}
