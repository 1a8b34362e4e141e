//! [`Scene`]: a registry of its own, and the [`Cast`] in it.

use std::time::Duration;

use callsign_testkit::fixture::{Served, Tuning, with_query};
use callsign_testkit::proxy::Proxy;
use callsign_testkit::wait::{eventually, until};
use tokio::time::Instant;

use crate::cast::Cast;

/// The TTL of the matrix.
pub(crate) const TTL: Duration = Duration::from_secs(5);
/// The bound on an own entry's return, once the registry answers: B of the matrix.
pub(crate) const BACK: Duration = Duration::from_secs(6);

pub(crate) const TUNING: Tuning =
    Tuning { ttl: Some(TTL), grace: None, drain: Some(Duration::from_millis(700)), verify: None };

/// `full` where the full length is wanted.
pub(crate) fn long(short: u64, full: u64) -> Duration {
    Duration::from_secs(if callsign_testkit::conformance::full() { full } else { short })
}

pub(crate) struct Scene<F> {
    pub(crate) fixture: F,
    /// The link of the backends; that of the watch is the fixture's own.
    pub(crate) servers_link: Proxy,
    pub(crate) cast: Cast,
    tuning: Tuning,
}

impl<F: Served> Scene<F> {
    pub(crate) async fn set(tuning: Tuning) -> Self {
        Self::set_in(F::start_with(callsign::open).await, tuning).await
    }

    pub(crate) async fn set_in(fixture: F, tuning: Tuning) -> Self {
        let servers_link = fixture.another_link().await;
        let url = |link: &Proxy| with_query(&fixture.url_via(link.addr()), &tuning.query());
        let cast = Cast::enter(&url(&servers_link), &url(fixture.link().unwrap())).await;
        Self { fixture, servers_link, cast, tuning }
    }

    /// What a backend registers by.
    pub(crate) fn url(&self) -> String {
        with_query(&self.fixture.url_via(self.servers_link.addr()), &self.tuning.query())
    }

    /// How many entries the registry has.
    pub(crate) async fn entries(&self) -> usize {
        self.fixture.count(&self.cast.service).await.unwrap_or(0)
    }

    /// The watch turns stale within `within`, and shows exactly what it showed before.
    pub(crate) async fn goes_stale(&mut self, within: Duration) {
        let before = self.cast.watch.snapshot();
        let stale = until(&mut self.cast.watch, within, "stale", |s| s.freshness().is_stale()).await;
        assert!(before.iter().eq(stale.iter()), "{before:?} then {stale:?}");
    }

    /// The registry has the entries of all backends, and the watch is fresh and confirms them, within `within`.
    pub(crate) async fn recovers(&mut self, within: Duration) {
        let (start, all) = (Instant::now(), self.cast.backends.len());
        eventually(within, "all entries are back", async || self.entries().await == all).await;
        let left = within.saturating_sub(start.elapsed()) + Duration::from_secs(1);
        self.cast.is_exact(left).await;
    }
}
