//! What the integration tests share: registries, a registry by script, conditions with a deadline.

#![allow(dead_code, unused_macros, reason = "each test program uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy sees no test in a helper of tests"
)]

#[cfg(feature = "grpc")]
pub(crate) mod echo;
#[cfg(feature = "grpc")]
#[macro_use]
pub(crate) mod grpc;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{
    Claim, Error, ErrorKind, Instance, InstanceId, InstanceWatch, Kept, Lease, Loss, Protocol, Registry,
    RegistryUrl, Report, Result, ServiceName, Settings, Source, Terms, Update,
};
use tokio::sync::{mpsc, watch};

/// A `memory:` registry that no other test has.
pub(crate) fn memory() -> Registry {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("memory:lb-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    callsign_core::memory::open(&RegistryUrl::parse(&name).unwrap()).unwrap()
}

pub(crate) fn service() -> ServiceName {
    "book".parse().unwrap()
}

pub(crate) fn book(port: u16) -> Instance {
    Instance::new("book", format!("127.0.0.1:{port}")).unwrap()
}

pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

/// Waits for a condition that nothing announces.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    within(Duration::from_secs(10), what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) fn io_error(kind: std::io::ErrorKind) -> std::io::Error {
    std::io::Error::new(kind, "by the test")
}

/// A registry that says what a test makes it say.
#[derive(Debug, Clone)]
pub(crate) struct Script(mpsc::UnboundedSender<Result<Update>>);

impl Script {
    pub(crate) fn open() -> (Self, Registry, InstanceWatch) {
        Self::with_grace(Duration::ZERO)
    }

    pub(crate) fn with_grace(grace: Duration) -> (Self, Registry, InstanceWatch) {
        let (says, said) = mpsc::unbounded_channel();
        let mut settings = Settings::default();
        settings.grace = grace;
        settings.publish_interval = Duration::ZERO;
        settings.backoff = (Duration::from_millis(1), Duration::from_millis(2));
        let protocol = Scripted { said: Mutex::new(Some(said)), settings };
        let registry = Registry::new("script:", protocol).unwrap();
        let watch = registry.watch(&service());
        (Self(says), registry, watch)
    }

    pub(crate) fn lists(&self, ports: impl IntoIterator<Item = u16>) {
        self.says(Ok(Update::Full(ports.into_iter().map(book).collect())));
    }

    pub(crate) fn fails(&self, message: &str) {
        self.says(Err(Error::new(ErrorKind::Unavailable, message)));
    }

    pub(crate) fn says(&self, update: Result<Update>) {
        self.0.send(update).unwrap();
    }
}

#[derive(Debug)]
struct Scripted {
    said: Mutex<Option<mpsc::UnboundedReceiver<Result<Update>>>>,
    settings: Settings,
}

#[derive(Debug)]
pub(crate) struct ScriptedSource(Option<mpsc::UnboundedReceiver<Result<Update>>>);

#[derive(Debug)]
pub(crate) struct NoLease;

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "a script is only read")
}

#[async_trait]
impl Protocol for Scripted {
    type Source = ScriptedSource;
    type Lease = NoLease;

    fn source(&self, _: &ServiceName) -> ScriptedSource {
        ScriptedSource(self.said.lock().unwrap().take())
    }

    fn lease(&self, _: &Instance) -> NoLease {
        NoLease
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        Err(unsupported())
    }

    async fn remove(&self, _: &ServiceName, _: &InstanceId) -> Result<()> {
        Err(unsupported())
    }

    async fn check(&self) -> Report {
        panic!("no test checks a script")
    }
}

#[async_trait]
impl Source for ScriptedSource {
    async fn next(&mut self) -> Result<Update> {
        match &mut self.0 {
            Some(said) => match said.recv().await {
                Some(update) => update,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    fn relist(&mut self) {}
}

#[async_trait]
impl Lease for NoLease {
    async fn claim(&mut self, _: Claim, _: &Instance) -> Result<Option<Terms>> {
        Err(unsupported())
    }

    async fn renew(&mut self) -> Result<Kept> {
        Err(unsupported())
    }

    async fn write(&mut self, _: &Instance) -> Result<Kept> {
        Err(unsupported())
    }

    async fn verify(&mut self, _: &Instance) -> Result<Kept> {
        Err(unsupported())
    }

    async fn lost(&mut self) -> Loss {
        std::future::pending().await
    }

    async fn release(&mut self) -> Result<()> {
        Ok(())
    }
}

/// An endpoint that counts itself.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) port: u16,
    counts: Arc<Counts>,
}

/// What a factory of probes has done and is to do.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) made: AtomicU64,
    pub(crate) alive: AtomicU64,
    /// The ports that cannot be connected to, and those that hang.
    pub(crate) refused: Mutex<Vec<u16>>,
    pub(crate) hanging: watch::Sender<Vec<u16>>,
}

impl Counts {
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }

    pub(crate) fn alive(&self) -> u64 {
        self.alive.load(Ordering::SeqCst)
    }

    pub(crate) fn refuse(&self, ports: impl IntoIterator<Item = u16>) {
        *self.refused.lock().unwrap() = ports.into_iter().collect();
    }

    pub(crate) fn hang(&self, ports: impl IntoIterator<Item = u16>) {
        self.hanging.send_replace(ports.into_iter().collect());
    }

    /// A factory of probes.
    pub(crate) fn factory(
        self: &Arc<Self>,
    ) -> impl Fn(Arc<Instance>) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<Probe>> + Send>>
    + Send
    + Sync
    + 'static {
        let counts = Arc::clone(self);
        move |instance| {
            let counts = Arc::clone(&counts);
            Box::pin(async move {
                counts.made.fetch_add(1, Ordering::SeqCst);
                let port = instance.address().port();
                let _ = counts.hanging.subscribe().wait_for(|ports| !ports.contains(&port)).await;
                if counts.refused.lock().unwrap().contains(&port) {
                    return Err(io_error(std::io::ErrorKind::ConnectionRefused));
                }
                counts.alive.fetch_add(1, Ordering::SeqCst);
                Ok(Probe { port, counts })
            })
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.counts.alive.fetch_sub(1, Ordering::SeqCst);
    }
}
