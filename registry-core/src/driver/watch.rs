//! [`WatchDriver`]: follows one service for all who watch it. The entry is [`WatchDriver::run`].
//!
//! One loop over three phases: listing, following, and pausing after a failure. In every phase the last good
//! set stays published, held instances are let go in their time, and at most one snapshot goes out in each
//! publish interval.

use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::backoff::Backoff;
use super::view::View;
use crate::backend::{Source, Update};
use crate::error::{Error, ErrorKind, Result};
use crate::model::ServiceName;
use crate::settings::Settings;
use crate::snapshot::{Freshness, Snapshot};
use crate::time::{after, from_now};

/// What one wait of the driver ended with.
enum Event {
    Read(Result<Update>),
    Relist,
}

#[derive(Debug)]
pub(crate) struct WatchDriver<S> {
    source: S,
    settings: Settings,
    board: Board,
    backoff: Backoff,
}

impl<S: Source> WatchDriver<S> {
    pub(crate) fn new(
        service: ServiceName,
        source: S,
        settings: Settings,
        publisher: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        let backoff = Backoff::new(settings.backoff, settings.rng());
        let board = Board {
            view: View::new(settings.grace),
            freshness: Freshness::Pending { error: None },
            skipped: 0,
            dirty: false,
            not_before: Instant::now(),
            interval: settings.publish_interval,
            service,
            publisher,
        };
        Self { source, settings, board, backoff }
    }

    /// Runs until it is dropped: whoever spawned it holds the guard.
    pub(crate) async fn run(mut self) {
        let mut listing = true;
        let mut relist_at = from_now(self.backoff.spread(self.settings.relist));
        loop {
            let list_by = listing.then(|| from_now(self.settings.request_timeout.saturating_mul(4)));
            match self.read(list_by, relist_at).await {
                Event::Read(Ok(Update::Delta { .. })) if listing => {
                    // A breach of the contract; what is listed must not be built upon it.
                    self.source.relist();
                    let what = "the backend told of changes where a list was due";
                    self.board.failed(Error::new(ErrorKind::Other, what));
                    let pause = self.backoff.after(ErrorKind::Other, Instant::now());
                    self.board.pause(Instant::now() + pause).await;
                }
                Event::Read(Ok(update)) => {
                    listing = false;
                    self.board.read(update, self.source.skipped(), Instant::now());
                }
                Event::Read(Err(error)) => {
                    listing = true;
                    let pause = self.backoff.after(error.kind(), Instant::now());
                    self.board.failed(error);
                    self.board.pause(Instant::now() + pause).await;
                }
                Event::Relist => {
                    listing = true;
                    self.source.relist();
                }
            }
            if listing {
                relist_at = from_now(self.backoff.spread(self.settings.relist));
            }
        }
    }

    /// Waits for the source, for the bound on a listing or for the time to list anew, publishing meanwhile
    /// what is due. The call of `next` is never dropped half way for a publish: a long listing must get on.
    async fn read(&mut self, list_by: Option<Instant>, relist_at: Instant) -> Event {
        let mut next = pin!(self.source.next());
        let give_up = list_by.unwrap_or(relist_at);
        loop {
            tokio::select! {
                biased;
                () = self.board.due() => {}
                read = &mut next => return Event::Read(read),
                () = sleep_until(give_up) => break,
            }
        }
        if list_by.is_none() {
            return Event::Relist;
        }
        let service = &self.board.service;
        Event::Read(Err(Error::new(
            ErrorKind::Timeout,
            format!("the registry did not list {service} in time"),
        )))
    }
}

/// What is published, and when the next publish may be.
#[derive(Debug)]
struct Board {
    view: View,
    freshness: Freshness,
    skipped: usize,
    dirty: bool,
    not_before: Instant,
    interval: std::time::Duration,
    service: ServiceName,
    publisher: watch::Sender<Arc<Snapshot>>,
}

impl Board {
    fn read(&mut self, update: Update, skipped: usize, now: Instant) {
        let held = self.view.held();
        self.dirty |= self.view.apply(update, now);
        self.dirty |= std::mem::replace(&mut self.skipped, skipped) != skipped;
        if self.view.held() > held {
            warn!(
                service = %self.service,
                held = self.view.held(),
                "more than half of the instances vanished unannounced: kept until they return or grace ends"
            );
        }
        if !self.freshness.is_fresh() {
            if self.freshness.is_stale() {
                info!(service = %self.service, instances = self.view.instances().size(), "fresh again");
            }
            self.freshness = Freshness::Fresh;
            self.dirty = true;
        }
        self.publish(now);
    }

    fn failed(&mut self, error: Error) {
        self.view.unreadable();
        let known = self
            .freshness
            .error()
            .is_some_and(|known| known.kind() == error.kind() && known.to_string() == error.to_string());
        if known {
            return;
        }
        warn!(service = %self.service, error = %error.chain(), "cannot read the registry; keeping the last set");
        self.freshness = match &self.freshness {
            Freshness::Pending { .. } => Freshness::Pending { error: Some(error) },
            Freshness::Fresh => Freshness::Stale { since: SystemTime::now(), error },
            Freshness::Stale { since, .. } => Freshness::Stale { since: *since, error },
        };
        self.dirty = true;
        self.publish(Instant::now());
    }

    /// Waits, publishing what falls due.
    async fn pause(&mut self, until: Instant) {
        loop {
            tokio::select! {
                biased;
                () = self.due() => {}
                () = sleep_until(until) => return,
            }
        }
    }

    /// Waits until something is to be published or let go, and does it. Cancel-safe.
    async fn due(&mut self) {
        let publish_at = self.dirty.then_some(self.not_before);
        let Some(at) = [publish_at, self.view.due()].into_iter().flatten().min() else {
            return std::future::pending().await;
        };
        sleep_until(at).await;
        let now = Instant::now();
        let gone = self.view.expire(now);
        if !gone.is_empty() {
            warn!(service = %self.service, instances = ?gone, "grace has passed: removed what did not return");
            self.dirty = true;
        }
        self.publish(now);
    }

    /// Publishes if there is news and the interval since the last publish has passed.
    fn publish(&mut self, now: Instant) {
        if !self.dirty || now < self.not_before {
            return;
        }
        self.dirty = false;
        self.not_before = after(now, self.interval);
        let before = Arc::clone(&self.publisher.borrow());
        let next = before.next(self.freshness.clone(), self.view.instances().clone(), self.skipped);
        self.publisher.send_replace(Arc::new(next));
    }
}

/// A backend that panics takes its driver with it. Whoever holds the last set must not believe it fresh.
impl Drop for Board {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.not_before = Instant::now();
            self.failed(Error::new(
                ErrorKind::Other,
                "the backend panicked: the service is followed no more",
            ));
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
