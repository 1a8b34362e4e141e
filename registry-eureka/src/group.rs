//! [`Group`]: what all sources of one registry share: one list of everything, kept up by changes, where many services are
//! followed. Whoever asks first fetches it for all; it has no task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callsign_core::{Error, Result};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;
use tracing::debug;

use crate::all::{All, Anew};
use crate::ask::{Ask, Origin};
use crate::servers::Servers;
use crate::wire::read_each;

/// Changes can be missed in ways that no sum of them tells: so often everything is listed anew.
const FULL: Duration = Duration::from_secs(300);
/// Servers tell of a change for three minutes: who has not asked for as long as this may have missed one.
const TOLD: Duration = Duration::from_secs(120);
/// From so many services on that are followed, one list of everything is less than a list for each of them.
const MANY: usize = 5;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fetch {
    /// Each service by itself while few are followed, everything at once when there are many.
    #[default]
    Auto,
    /// Each service by itself, always: for registries that have far more than is followed.
    Each,
    /// Everything at once, always: whole once, then what has changed.
    All,
}

impl Fetch {
    pub(crate) const ALL: [(&'static str, Self); 3] =
        [("auto", Self::Auto), ("each", Self::Each), ("all", Self::All)];
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) servers: Servers,
    fetch: Fetch,
    following: AtomicUsize,
    shared: Mutex<Shared>,
}

/// One who follows a service.
#[derive(Debug)]
pub(crate) struct Member(Arc<Group>);

/// By whom and when something was fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetched {
    pub(crate) origin: Origin,
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
}

/// What was fetched.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    all: All,
    /// How it was got last; `None` if nothing can be built upon.
    from: Option<Fetched>,
    full_at: Option<Instant>,
    /// Who fetches next takes them for the failed ones.
    broken: bool,
    /// Why it could not be got last, and when that was known.
    failed: Option<(Instant, Error)>,
}

impl Group {
    pub(crate) fn new(servers: Servers, fetch: Fetch) -> Arc<Self> {
        Arc::new(Self { servers, fetch, following: AtomicUsize::new(0), shared: Mutex::default() })
    }
}

impl Member {
    pub(crate) fn new(group: &Arc<Group>) -> Self {
        group.following.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(group))
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.0.servers
    }

    /// Whether everything is asked for at once.
    pub(crate) fn shares(&self) -> bool {
        match self.0.fetch {
            Fetch::Auto => self.0.following.load(Ordering::Relaxed) >= MANY,
            Fetch::Each => false,
            Fetch::All => true,
        }
    }

    /// Everything, as it was asked for later than `after`: by whomever. A failure is for all who waited for it, as a
    /// success is: they need not find out one after another. Cancel-safe: whoever waits meanwhile fetches it then.
    pub(crate) async fn fetch(&self, after: Instant) -> Result<MutexGuard<'_, Shared>> {
        let waits_since = Instant::now();
        let mut shared = self.0.shared.lock().await;
        if let Some((_, error)) = shared.failed.as_ref().filter(|(at, _)| *at > waits_since) {
            return Err(error.clone());
        }
        if shared.broken || shared.from.is_none_or(|from| from.asked <= after) {
            let fetched = shared.refresh(&self.0.servers).await;
            if let Err(error) = &fetched {
                shared.broken = true;
                shared.failed = Some((Instant::now(), error.clone()));
            }
            fetched?;
            shared.failed = None;
        }
        Ok(shared)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.following.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn all(&self) -> &All {
        &self.all
    }

    pub(crate) fn from(&self) -> Option<Fetched> {
        self.from
    }

    async fn refresh(&mut self, servers: &Servers) -> Result<()> {
        // Whoever asks: it is told to all.
        let what = "list of everything";
        let due = self.broken || self.full_at.is_none_or(|at| at.elapsed() > FULL);
        if let Some(before) = self.from.filter(|from| !due && from.asked.elapsed() < TOLD) {
            let ask = Ask::get(&["apps", "delta"]).changes();
            let answered = servers.ask(what, &ask).await?;
            // Some servers tell of no changes, and say so by 403.
            let told = !answered.is_absent() && answered.answer.status.as_u16() != 403;
            if told {
                let answered = servers.checked(what, answered)?;
                let (asked, origin) = (answered.asked, answered.origin());
                // Changes are of no use to who has not heard the whole of the same server.
                if origin == before.origin {
                    let all = &mut self.all;
                    let hash = read_each(&answered.answer.body, |read| all.apply(read));
                    let hash = hash.map_err(|why| servers.malformed(what, answered.by, why))?;
                    if self.all.adds_up(hash.as_deref()) {
                        self.from = Some(Fetched { origin, asked, answered: Instant::now() });
                        return Ok(());
                    }
                }
                debug!(
                    server = servers.name(origin.server),
                    "changes do not add up to what Eureka has: listing it anew"
                );
            }
        }
        let answered = servers.ask(what, &Ask::get(&["apps"]).list()).await?;
        if answered.is_absent() {
            servers.prove(what).await?;
        }
        let answered = servers.checked(what, answered)?;
        let (asked, origin) = (answered.asked, answered.origin());
        let mut anew = Anew::default();
        read_each(&answered.answer.body, |read| self.all.add(&mut anew, read))
            .map_err(|why| servers.malformed(what, answered.by, why))?;
        self.all.replace(anew);
        self.from = Some(Fetched { origin, asked, answered: Instant::now() });
        self.full_at = Some(asked);
        self.broken = false;
        Ok(())
    }
}
