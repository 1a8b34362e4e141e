//! [`Scene`]: four backend processes registered in a registry of their own, a recorded watch, and calls to them.

use std::time::Duration;

use callsign::{InstanceId, InstanceWatch, Registry, ServiceName, Snapshot};
use callsign_testkit::fixture::{Served, Tuning, with_query};
use callsign_testkit::proxy::Proxy;
use callsign_testkit::record::{Recorder, confirmed};
use callsign_testkit::wait::{eventually, ok, until};
use tokio::time::Instant;

use crate::backend::Backend;
use crate::traffic::Traffic;

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
    pub(crate) service: ServiceName,
    /// The link of the backends; that of the watch is the fixture's own.
    pub(crate) servers_link: Proxy,
    pub(crate) backends: Vec<Backend>,
    /// The registry of the watch.
    pub(crate) clients: Registry,
    pub(crate) watch: InstanceWatch,
    pub(crate) recorder: Recorder,
    pub(crate) traffic: Traffic,
    tuning: Tuning,
}

impl<F: Served> Scene<F> {
    pub(crate) async fn set(tuning: Tuning) -> Self {
        Self::set_in(F::start_with(callsign::open).await, tuning).await
    }

    pub(crate) async fn set_in(fixture: F, tuning: Tuning) -> Self {
        let servers_link = fixture.another_link().await;
        let service: ServiceName = "book".parse().unwrap();
        let clients = ok(fixture.open(&tuning), "open");
        let mut watch = clients.watch(&service);
        let mut backends = Vec::new();
        let url = with_query(&fixture.url_via(servers_link.addr()), &tuning.query());
        for _ in 0..4 {
            backends.push(Backend::start(&url, &service).await);
        }
        until(&mut watch, BACK, "all are seen", |s| s.len() == 4).await;
        let traffic = Traffic::start(watch.clone()).await;
        let recorder = Recorder::start(watch.clone());
        Self { fixture, service, servers_link, backends, clients, watch, recorder, traffic, tuning }
    }

    /// What a backend registers by.
    pub(crate) fn url(&self) -> String {
        with_query(&self.fixture.url_via(self.servers_link.addr()), &self.tuning.query())
    }

    pub(crate) fn ids(&self) -> Vec<InstanceId> {
        let mut ids: Vec<_> = self.backends.iter().map(|backend| backend.id.clone()).collect();
        ids.sort();
        ids
    }

    /// How many entries the registry has.
    pub(crate) async fn entries(&self) -> usize {
        self.fixture.count(&self.service).await.unwrap_or(0)
    }

    /// The watch turns stale within `within`, and shows exactly what it showed before.
    pub(crate) async fn goes_stale(&mut self, within: Duration) {
        let before = self.watch.snapshot();
        let stale = until(&mut self.watch, within, "stale", |s| s.freshness().is_stale()).await;
        assert!(before.iter().eq(stale.iter()), "{before:?} then {stale:?}");
    }

    /// The registry has the entries of all backends, and the watch is fresh and confirms them, within `within`.
    pub(crate) async fn recovers(&mut self, within: Duration) {
        let (start, all) = (Instant::now(), self.ids());
        eventually(within, "all entries are back", async || self.entries().await == all.len()).await;
        let left = within.saturating_sub(start.elapsed()) + Duration::from_secs(1);
        let good = |s: &Snapshot| s.freshness().is_fresh() && confirmed(s).iter().eq(&all);
        until(&mut self.watch, left, "fresh, and all are confirmed", good).await;
    }

    /// What holds in every row without a death: nothing was ever missing, and no call failed.
    pub(crate) async fn end_unharmed(self) {
        self.recorder.check_never_missing(&self.ids());
        self.recorder.check_safety();
        self.traffic.finish_without_failure().await;
    }
}
