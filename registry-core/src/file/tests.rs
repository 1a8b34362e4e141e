//! The registry in one process. Tests with several are in `tests/file_processes.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::names::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::instancer::InstanceWatch;
use crate::model::{Instance, InstanceId, ServiceName, State};
use crate::registrar::Registration;
use crate::registry::Registry;
use crate::snapshot::Snapshot;
use crate::url::RegistryUrl;

/// A directory of its own, removed at the end.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("callsign-file-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A registry in a directory that does not exist yet.
    fn registry(&self) -> Registry {
        self.registry_with("?drain=0s")
    }

    fn registry_with(&self, query: &str) -> Registry {
        open(&format!("file://{}/a/b{query}", self.0.display())).unwrap()
    }

    fn root(&self) -> PathBuf {
        self.0.join("a/b")
    }

    fn place(&self, instance: &Instance) -> Place {
        Place::new(&self.root(), instance.service(), instance.id())
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(url: &str) -> Result<Registry> {
    super::open(&RegistryUrl::parse(url).unwrap())
}

fn book() -> ServiceName {
    "book".parse().unwrap()
}

fn instance(port: u16) -> Instance {
    Instance::new("book", format!("127.0.0.1:{port}")).unwrap()
}

fn ids(snapshot: &Snapshot) -> Vec<String> {
    snapshot.iter().map(|listed| listed.id().to_string()).collect()
}

/// Waits until a watch shows what is wanted.
async fn until(watch: &mut InstanceWatch, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let waiting = async {
        let mut snapshot = watch.snapshot();
        while !holds(&snapshot) {
            snapshot = watch.changed().await.unwrap();
        }
        snapshot
    };
    timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("never {what}: {watch:?}"))
}

/// Waits until a registration is as is wanted.
async fn status(registration: &mut Registration, what: &str, holds: impl Fn(&Registration) -> bool) {
    let waiting = async {
        while !holds(registration) {
            registration.status_changed().await;
        }
    };
    timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("never {what}"));
}

fn refused<T>(result: Result<T>) -> Error {
    result.err().expect("refused")
}

#[tokio::test]
async fn a_url_is_an_absolute_directory_and_known_keys() {
    for (url, says) in [
        ("file:relative", "file:///absolute/dir"),
        ("file://", "file:///absolute/dir"),
        ("file:///", "file:///absolute/dir"),
        ("file://dir", "names a host"),
        ("file://dir/x", "names a host"),
        ("file://user:canary@/x", "has TLS or a user"),
        ("file+tls:///x", "has TLS or a user"),
        ("file:///x?ttl=5s", "lives exactly as long as its owner"),
        ("file:///x?drian=5s", "drain, grace"),
        ("file:///x?drain=5", "duration"),
        ("file:///x%00y", "absolute path"),
    ] {
        let error = refused(open(url));
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        assert!(error.to_string().contains(says) && !error.to_string().contains("canary"), "{url}: {error}");
    }
    let registry = open("file:///x/y%20z?drain=0s&verify=1s&grace=5s").unwrap();
    assert_eq!(format!("{registry:?}"), "file:/x/y z");
    assert_eq!(registry.settings().grace, Duration::from_secs(5));
    assert_eq!(open("file:///x").unwrap().settings().grace, Duration::ZERO);
}

#[tokio::test]
async fn is_found_changed_and_gone() {
    let dir = TempDir::new();
    let (here, there) = (dir.registry(), dir.registry());
    let mut watch = there.watch(&book());
    let empty = timeout(Duration::from_secs(5), watch.ready()).await.unwrap().unwrap();
    assert!(empty.is_empty() && empty.freshness().is_fresh());
    assert!(!dir.root().exists(), "watching makes no directory");

    let first = here.register(instance(1)).await.unwrap();
    let found = until(&mut watch, "registered", |snapshot| snapshot.len() == 1).await;
    assert_eq!(**found.iter().next().unwrap().instance(), instance(1));
    let second = here.register(instance(2)).await.unwrap();
    until(&mut watch, "second", |snapshot| snapshot.len() == 2).await;

    first.update(instance(1).with_weight(7)).await.unwrap();
    let id = InstanceId::new("127.0.0.1:1").unwrap();
    until(&mut watch, "updated", |snapshot| snapshot.get(&id).is_some_and(|listed| listed.weight() == 7))
        .await;
    second.drain().await.unwrap();
    until(&mut watch, "draining", |snapshot| snapshot.iter().any(|l| l.state() == State::Draining)).await;

    first.deregister().await.unwrap();
    let left = until(&mut watch, "deregistered", |snapshot| snapshot.len() == 1).await;
    assert_eq!(ids(&left), ["127.0.0.1:2"]);
    drop(second);
    until(&mut watch, "dropped", |snapshot| snapshot.is_empty()).await;
    let left: Vec<_> = fs::read_dir(dir.root().join("book")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
