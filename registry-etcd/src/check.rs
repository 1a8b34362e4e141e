//! [`Check`]: asks now and then whether a service may still be read. etcd asks that of itself only when a watch begins,
//! so that a right which was taken away would never show.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use callsign_core::{Error, ErrorKind, Result};
use etcd_client::GetOptions;
use tokio::time::{Instant, sleep_until};

use crate::index::Index;
use crate::members::{Link, Members, Repeat};

/// The most that passes between two checks, but for the spread by a fifth.
const EVERY: Duration = Duration::from_secs(25);
/// After a check that could not be made, at first and at the most.
const SOON: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Whether etcd can be reached is for the watch to say; but who cannot ask for so long does not know any more.
const BLIND: Duration = Duration::from_secs(15);

/// Kept in `self` and not on the stack of a call, so that a call that is dropped loses nothing of it.
type Running = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

pub(crate) struct Check {
    every: Duration,
    at: Instant,
    running: Option<Running>,
    /// Since when no check could be made, and the pause after the last.
    failing: Option<(Instant, Duration)>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("every", &self.every).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Check {
    pub(crate) fn new(every: Duration) -> Self {
        Self { every: every.min(EVERY), at: Instant::now(), running: None, failing: None }
    }

    /// We could read just now.
    pub(crate) fn passed(&mut self, rng: &mut fastrand::Rng) {
        self.stop();
        self.failing = None;
        self.at = Instant::now() + self.every.mul_f64(0.8 + 0.4 * rng.f64());
    }

    /// Gives up what is under way.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    /// Whether an error of a check is to be told: it is a refusal, or goes on for too long.
    pub(crate) fn tells(&self, error: &Error) -> bool {
        let refusal = matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::PermissionDenied);
        refusal || self.failing.is_some_and(|(since, _)| since.elapsed() > BLIND)
    }

    /// Resolves with the next check that comes to an end. Cancel-safe.
    pub(crate) async fn due(
        &mut self,
        members: &Arc<Members>,
        index: &Index,
        rng: &mut fastrand::Rng,
    ) -> Result<()> {
        if self.running.is_none() {
            sleep_until(self.at).await;
        }
        let running = self.running.get_or_insert_with(|| Box::pin(run(Arc::clone(members), index)));
        let checked = running.await;
        if checked.is_ok() {
            self.passed(rng);
        } else {
            self.stop();
            let (since, pause) = self.failing.unwrap_or((Instant::now(), SOON.0));
            self.at = Instant::now() + pause.mul_f64(0.8 + 0.4 * rng.f64());
            self.failing = Some((since, (pause * 2).min(SOON.1)));
        }
        checked
    }

    /// The same, at once. Cancel-safe.
    pub(crate) async fn now(
        &mut self,
        members: &Arc<Members>,
        index: &Index,
        rng: &mut fastrand::Rng,
    ) -> Result<()> {
        self.at = Instant::now();
        self.due(members, index, rng).await
    }
}

fn run(members: Arc<Members>, index: &Index) -> impl Future<Output = Result<()>> + Send + use<> {
    let what = format!("check of {}", index.service());
    let prefixes: Vec<_> = index.readable().map(|(_, prefix)| prefix.to_owned()).collect();
    async move {
        for prefix in &prefixes {
            let read = |mut link: Link| async move {
                // By the member's own knowledge: the answer itself is of no interest.
                let one = GetOptions::new().with_prefix().with_limit(1).with_keys_only().with_serializable();
                link.kv.get(prefix.as_str(), Some(one)).await
            };
            members.ask(&what, Repeat::Safe, read).await?;
        }
        Ok(())
    }
}
