//! [`Members`]: one client for each member of the cluster, and which of them is asked.
//!
//! The client library balances over all endpoints and never leaves a dead one out, so here each has a client of
//! its own and the rotation is ours: everybody asks the same member until it fails, then the next.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use callsign_core::{Address, Connector, Error, ErrorKind, Result};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::error;
use crate::identity::Identity;
pub(crate) use crate::link::{Link, MAX_PAGE};

/// How long a member that failed is asked last.
const SHUNNED: Duration = Duration::from_secs(5);
/// A request that was given up after this long says that its member hangs.
const SUSPICIOUS: Duration = Duration::from_secs(1);
/// The least that a member is given, if there is so much time: it may be slow and not dead.
const LEAST_SHARE: Duration = Duration::from_millis(2500);

/// How many tokens are asked for, at the most, for one request to one member.
const TOKENS: usize = 2;

/// Whether a request may be sent to another member when the outcome at the first is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It reads, or doing it twice is the same as once.
    Safe,
    /// Only if it certainly never took effect.
    Unsent,
}

struct Member {
    address: Address,
    name: String,
    link: OnceCell<Link>,
    failed: Mutex<Option<Instant>>,
}

/// The members, and the one that everybody asks.
pub(crate) struct Members {
    members: Vec<Member>,
    preferred: AtomicUsize,
    timeout: Duration,
    connector: Arc<Connector>,
    identity: Option<Arc<Identity>>,
    /// Connections live here, whoever is the first to use them.
    runtime: Handle,
}

/// How a request to one member failed.
enum Failed {
    AtEtcd(etcd_client::Error),
    /// Before it was made.
    Before(Error),
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.members.iter().map(|member| &member.name)).finish()
    }
}

impl Members {
    /// `first` is the member that is asked first. Does no I/O.
    pub(crate) fn new(
        addresses: Vec<Address>,
        first: usize,
        timeout: Duration,
        connector: Connector,
        identity: Option<Identity>,
        runtime: Handle,
    ) -> Self {
        let member = |address: Address| Member {
            name: address.to_string(),
            address,
            link: OnceCell::new(),
            failed: Mutex::default(),
        };
        Self {
            members: addresses.into_iter().map(member).collect(),
            preferred: AtomicUsize::new(first),
            timeout,
            connector: Arc::new(connector),
            identity: identity.map(Arc::new),
            runtime,
        }
    }

    /// The most that one exchange may take, all members together.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn address(&self, member: usize) -> &str {
        self.members.get(member).map_or("", |member| &member.name)
    }

    /// Asks one member after the other within [`timeout`](Self::timeout), and returns who answered what.
    pub(crate) async fn ask<T, F, Fut>(&self, what: &str, repeat: Repeat, op: F) -> Result<(usize, T)>
    where
        F: Fn(Link) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.ask_within(self.timeout, what, repeat, op).await
    }

    /// The same within another bound. Cancel-safe as far as the request is.
    pub(crate) async fn ask_within<T, F, Fut>(
        &self,
        within: Duration,
        what: &str,
        repeat: Repeat,
        op: F,
    ) -> Result<(usize, T)>
    where
        F: Fn(Link) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let by = Instant::now() + within;
        let mut order: VecDeque<_> = self.order().into();
        let (mut failures, mut renewed) = (Vec::new(), HashSet::new());
        while let Some(index) = order.pop_front() {
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let fair = left / u32::try_from(order.len() + 1).unwrap_or(1);
            let share = fair.max(LEAST_SHARE).min(left);
            let attempt = Attempt { members: self, index, since: Instant::now(), over: false };
            let done = timeout(share, self.once(index, &op)).await;
            attempt.over();
            let (error, again) = match done {
                Ok(Ok(answer)) => {
                    self.good(index);
                    return Ok((index, answer));
                }
                Ok(Err(Failed::AtEtcd(error))) => {
                    let again = repeat == Repeat::Safe || error::unsent(&error);
                    if again && error::connection_died(&error) && renewed.insert(index) {
                        // Says nothing of the member yet.
                        order.push_front(index);
                        continue;
                    }
                    (self.explain(index, error::map(what, self.address(index), &error)), again)
                }
                Ok(Err(Failed::Before(error))) => (error, true),
                Err(_) => {
                    self.silent(index);
                    let member = self.address(index);
                    let text = format!("etcd at {member} did not answer the {what} within {share:.1?}");
                    (Error::new(ErrorKind::Timeout, text), repeat == Repeat::Safe)
                }
            };
            if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
                return Err(error);
            }
            self.bad(index);
            failures.push(error);
            if !again {
                break;
            }
        }
        Err(together(what, failures))
    }

    /// Marks a member that failed: another is asked first from now on.
    pub(crate) fn bad(&self, index: usize) {
        let Some(member) = self.members.get(index) else { return };
        *member.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let next = (index + 1) % self.members.len();
        let moved = self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() && next != index {
            debug!(failed = %member.name, next = %self.address(next), "another etcd member is asked from now on");
        }
    }

    fn good(&self, index: usize) {
        if let Some(member) = self.members.get(index) {
            *member.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.preferred.store(index, Ordering::Relaxed);
        }
    }

    /// From the preferred one on, those that failed of late at the end.
    fn order(&self) -> Vec<usize> {
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.members.len());
        let mut order: Vec<_> = (0..count).map(|step| (first + step) % count).collect();
        let now = Instant::now();
        order.sort_by_key(|&index| {
            let failed = *self.members[index].failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.is_some_and(|at| now.saturating_duration_since(at) < SHUNNED)
        });
        order
    }

    /// Where a connection ended at its beginning, why that was.
    fn explain(&self, index: usize, error: Error) -> Error {
        let link = self.members.get(index).and_then(|member| member.link.get());
        let link = link.filter(|_| error.kind() == ErrorKind::Unavailable);
        match link.and_then(Link::trouble) {
            Some(trouble) => {
                let what = format!("cannot connect to etcd at {}", self.address(index));
                Error::new(ErrorKind::Unavailable, what).with_source(trouble)
            }
            None => error,
        }
    }

    /// Asks one member. If it does not know us, again with a new token, which may be refused in turn if it was another
    /// who got it.
    async fn once<T, F, Fut>(&self, index: usize, op: &F) -> Result<T, Failed>
    where
        F: Fn(Link) -> Fut,
        Fut: Future<Output = Result<T, etcd_client::Error>>,
    {
        let link = self.link(index).await?;
        for _ in 0..TOKENS {
            let token = link.token();
            let done = op(link.clone()).await;
            link.answered(true);
            match (&self.identity, done) {
                // Refused before anything was done, so that it may be repeated whatever it is.
                (Some(identity), Err(refused)) if error::is_unauthenticated(&refused) => {
                    self.introduce(identity, &link, index, token).await?;
                }
                (_, done) => return done.map_err(Failed::AtEtcd),
            }
        }
        op(link).await.map_err(Failed::AtEtcd)
    }

    async fn link(&self, index: usize) -> Result<Link, Failed> {
        let member = &self.members[index];
        let open = || Link::new(&member.address, Arc::clone(&self.connector), self.runtime.clone());
        let link = member.link.get_or_try_init(open).await.map_err(Failed::AtEtcd)?.clone();
        let token = link.token();
        if let Some(identity) = self.identity.as_ref().filter(|_| token == 0 || link.is_doubtful()) {
            self.introduce(identity, &link, index, token).await?;
        }
        Ok(link)
    }

    /// Notes that a member left a request without an answer.
    fn silent(&self, index: usize) {
        if let Some(link) = self.members.get(index).and_then(|member| member.link.get()) {
            link.answered(false);
        }
    }

    /// Says who we are, in place of the token that was `refused`.
    async fn introduce(
        &self,
        identity: &Arc<Identity>,
        link: &Link,
        index: usize,
        refused: u64,
    ) -> Result<(), Failed> {
        let (identity, member) = (Arc::clone(identity), self.address(index).to_owned());
        let authenticate = |mut client| async move { identity.authenticate(&mut client, &member).await };
        link.renew_token(refused, &self.runtime, authenticate)
            .await
            .map_err(|error| Failed::Before(self.explain(index, error)))
    }
}

/// A request under way. Dropped while it hangs, because somebody gave up waiting, it counts as a failure.
struct Attempt<'a> {
    members: &'a Members,
    index: usize,
    since: Instant,
    over: bool,
}

impl Attempt<'_> {
    fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.over && self.since.elapsed() > SUSPICIOUS {
            self.members.silent(self.index);
            self.members.bad(self.index);
        }
    }
}

/// One error of all that failed.
fn together(what: &str, mut failures: Vec<Error>) -> Error {
    match failures.len() {
        0 => Error::new(ErrorKind::Timeout, format!("there was no time left for the {what}")),
        1 => failures.remove(0),
        count => {
            let chains: Vec<_> = failures.iter().map(Error::chain).collect();
            let timeout = failures.iter().all(|failure| failure.kind() == ErrorKind::Timeout);
            let kind = if timeout { ErrorKind::Timeout } else { ErrorKind::Unavailable };
            Error::new(
                kind,
                format!("none of {count} etcd members answered the {what}: {}", chains.join("; ")),
            )
        }
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
