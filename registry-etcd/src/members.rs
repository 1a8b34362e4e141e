//! [`Members`]: one client for each member of the cluster, and which of them is asked.
//!
//! The client library balances over all endpoints and never leaves a dead one out, so here each has a client of
//! its own and the rotation is ours: everybody asks the same member until it fails, then the next.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callsign_core::{Address, Error, ErrorKind, Result};
use etcd_client::{Client, ConnectOptions, KvClient, LeaseClient, MaintenanceClient, WatchClient};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tokio_util::context::TokioContext;
use tracing::debug;

use crate::error;

/// A member that takes longer to accept a connection is passed over.
const CONNECT: Duration = Duration::from_secs(2);
/// etcd closes a connection that pings more often than every 5 s. A connection that died silently is found out
/// after interval and timeout together.
const PING: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));
/// How long a member that failed is asked last.
const SHUNNED: Duration = Duration::from_secs(5);
/// A request that was given up after this long says that its member hangs.
const SUSPICIOUS: Duration = Duration::from_secs(1);
/// The least that a member is given, if there is so much time: it may be slow and not dead.
const LEAST_SHARE: Duration = Duration::from_millis(2500);
/// The largest page of a list.
pub(crate) const MAX_PAGE: usize = 16 * 1024 * 1024;
/// The largest message of a watch: up to a thousand revisions come in one when it catches up.
const MAX_EVENTS: usize = 64 * 1024 * 1024;

/// The clients of one member; clones share one connection.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) kv: KvClient,
    pub(crate) watch: WatchClient,
    pub(crate) lease: LeaseClient,
    pub(crate) maintenance: MaintenanceClient,
}

/// Whether a request may be sent to another member when the outcome at the first is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It reads, or doing it twice is the same as once.
    Safe,
    /// Only if it certainly never took effect.
    Unsent,
}

struct Member {
    address: String,
    link: OnceCell<Link>,
    failed: Mutex<Option<Instant>>,
}

/// The members, and the one that everybody asks.
pub(crate) struct Members {
    members: Vec<Member>,
    preferred: AtomicUsize,
    timeout: Duration,
    /// Connections live here, whoever is the first to use them.
    runtime: Handle,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.members.iter().map(|member| &member.address)).finish()
    }
}

impl Members {
    /// `first` is the member that is asked first. Does no I/O.
    pub(crate) fn new(addresses: &[Address], first: usize, timeout: Duration, runtime: Handle) -> Self {
        let member = |address: &Address| Member {
            address: address.to_string(),
            link: OnceCell::new(),
            failed: Mutex::default(),
        };
        Self {
            members: addresses.iter().map(member).collect(),
            preferred: AtomicUsize::new(first),
            timeout,
            runtime,
        }
    }

    /// The most that one exchange may take, all members together.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn address(&self, member: usize) -> &str {
        self.members.get(member).map_or("", |member| &member.address)
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
            let done = timeout(share, async { op(self.link(index).await?).await }).await;
            attempt.over();
            let (error, again) = match done {
                Ok(Ok(answer)) => {
                    self.good(index);
                    return Ok((index, answer));
                }
                Ok(Err(error)) => {
                    let again = repeat == Repeat::Safe || error::unsent(&error);
                    if again && error::connection_died(&error) && renewed.insert(index) {
                        // Says nothing of the member yet.
                        order.push_front(index);
                        continue;
                    }
                    (error::map(what, self.address(index), &error), again)
                }
                Err(_) => {
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
            debug!(failed = %member.address, next = %self.address(next), "another etcd member is asked from now on");
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

    async fn link(&self, index: usize) -> Result<Link, etcd_client::Error> {
        let member = &self.members[index];
        let connect = || {
            let options = ConnectOptions::new()
                .with_connect_timeout(CONNECT)
                .with_keep_alive(PING.0, PING.1)
                // etcd counts pings on a connection without requests as an attack.
                .with_keep_alive_while_idle(false)
                .with_require_leader(true);
            let endpoint = format!("http://{}", member.address);
            // The connection's tasks must outlive whatever runtime happens to ask first.
            TokioContext::new(
                async move {
                    let client = Client::connect([endpoint], Some(options)).await?;
                    Ok(Link {
                        kv: client.kv_client().max_decoding_message_size(MAX_PAGE),
                        watch: client.watch_client().max_decoding_message_size(MAX_EVENTS),
                        lease: client.lease_client(),
                        maintenance: client.maintenance_client(),
                    })
                },
                self.runtime.clone(),
            )
        };
        member.link.get_or_try_init(connect).await.cloned()
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
