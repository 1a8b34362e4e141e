//! [`Cast`]: who is there in every row: four backends, a recorded watch, and calls to them.

use std::time::Duration;

use callsign::{InstanceId, InstanceWatch, Registry, ServiceName, Snapshot};
use callsign_testkit::record::{Recorder, confirmed};
use callsign_testkit::wait::{ok, until};

use crate::backend::Backend;
use crate::scene::BACK;
use crate::traffic::Traffic;

pub(crate) struct Cast {
    pub(crate) service: ServiceName,
    pub(crate) backends: Vec<Backend>,
    /// The registry of the watch.
    pub(crate) clients: Registry,
    pub(crate) watch: InstanceWatch,
    pub(crate) recorder: Recorder,
    pub(crate) traffic: Traffic,
}

impl Cast {
    /// Servers and their clients may know the registry by different URLs.
    pub(crate) async fn enter(servers: &str, clients: &str) -> Self {
        let service: ServiceName = "book".parse().unwrap();
        let clients = ok(callsign::open(clients), "open");
        let mut watch = clients.watch(&service);
        let mut backends = Vec::new();
        for _ in 0..4 {
            backends.push(Backend::start(servers, &service).await);
        }
        until(&mut watch, BACK, "all are seen", |s| s.len() == 4).await;
        let traffic = Traffic::start(watch.clone()).await;
        let recorder = Recorder::start(watch.clone());
        Self { service, backends, clients, watch, recorder, traffic }
    }

    pub(crate) fn ids(&self) -> Vec<InstanceId> {
        let mut ids: Vec<_> = self.backends.iter().map(|backend| backend.id.clone()).collect();
        ids.sort();
        ids
    }

    /// The watch is fresh and confirms all backends and nobody else, within `within`.
    pub(crate) async fn is_exact(&mut self, within: Duration) {
        let all = self.ids();
        let exact = |s: &Snapshot| s.freshness().is_fresh() && confirmed(s).iter().eq(&all);
        until(&mut self.watch, within, "fresh, and all are confirmed", exact).await;
    }

    /// What holds in every row without a death: nothing was ever missing, and no call failed.
    pub(crate) async fn end_unharmed(self) {
        self.recorder.check_never_missing(&self.ids());
        self.recorder.check_safety();
        self.traffic.finish_without_failure().await;
    }
}
