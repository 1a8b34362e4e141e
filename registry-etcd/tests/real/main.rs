//! The backend against real etcd servers. `CALLSIGN_ETCD_BIN=/path/to/etcd cargo test -p callsign-etcd --test real
//! -- --ignored`, with etcdctl beside etcd.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print figures"
)]

mod formats;
mod leases;
mod link;
mod outages;
mod scale;
mod server;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use callsign_core::{
    Instance, InstanceWatch, Registration, Registry, RegistryUrl, ServiceName, Snapshot, Status,
};
use tokio::task::JoinSet;

pub(crate) fn open(url: &str) -> Registry {
    callsign_etcd::open(&RegistryUrl::parse(url).unwrap()).unwrap()
}

pub(crate) fn book() -> ServiceName {
    "book".parse().unwrap()
}

pub(crate) fn instance(port: u16) -> Instance {
    Instance::new("book", format!("127.0.0.1:{port}")).unwrap()
}

/// Waits for a snapshot that is as it should be, and says how long it took.
pub(crate) async fn until(
    watch: &mut InstanceWatch,
    within: u64,
    is: impl Fn(&Snapshot) -> bool,
) -> Duration {
    let started = Instant::now();
    let wait = async {
        while !is(&watch.snapshot()) {
            watch.changed().await.unwrap();
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(within), wait).await;
    assert!(done.is_ok(), "not so within {within} s: {:?}", watch.snapshot());
    started.elapsed()
}

/// Waits for a registration's status, and says how long it took.
pub(crate) async fn until_status(
    registration: &mut Registration,
    within: u64,
    is: impl Fn(&Status) -> bool,
) -> Duration {
    let started = Instant::now();
    let wait = async {
        while !is(&registration.status()) {
            registration.status_changed().await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(within), wait).await;
    assert!(done.is_ok(), "not so within {within} s: {:?}", registration.status());
    started.elapsed()
}

/// Waits for anything else.
pub(crate) async fn until_so(within: u64, what: &str, is: impl Fn() -> bool) -> Duration {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < Duration::from_secs(within), "not so within {within} s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    started.elapsed()
}

/// The ids of the confirmed, sorted.
pub(crate) fn ids(snapshot: &Snapshot) -> Vec<String> {
    snapshot.iter().filter(|listed| !listed.is_held()).map(|listed| listed.id().to_string()).collect()
}

pub(crate) fn fresh(count: usize) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| snapshot.freshness().is_fresh() && ids(snapshot).len() == count
}

/// Everything that a watch published after its first list.
pub(crate) struct History {
    seen: Arc<Mutex<Vec<Arc<Snapshot>>>>,
    _task: JoinSet<()>,
}

impl History {
    pub(crate) fn of(watch: &InstanceWatch) -> Self {
        let (mut watch, seen) = (watch.clone(), Arc::new(Mutex::new(vec![watch.snapshot()])));
        let mut task = JoinSet::new();
        let kept = Arc::clone(&seen);
        task.spawn(async move {
            while let Ok(snapshot) = watch.changed().await {
                kept.lock().unwrap().push(snapshot);
            }
        });
        Self { seen, _task: task }
    }

    pub(crate) fn never(&self, what: &str, is: impl Fn(&Snapshot) -> bool) {
        let seen = self.seen.lock().unwrap();
        let bad = seen.iter().find(|snapshot| is(snapshot));
        assert!(bad.is_none(), "{what}: {bad:?}");
    }

    pub(crate) fn ever(&self, what: &str, is: impl Fn(&Snapshot) -> bool) {
        let seen = self.seen.lock().unwrap();
        assert!(seen.iter().any(|snapshot| is(snapshot)), "never {what}: {seen:?}");
    }
}

/// What was measured, for whoever runs the tests with `--nocapture`.
pub(crate) fn measured(what: &str, value: impl Debug) {
    println!("measured: {what}: {value:.1?}");
}
