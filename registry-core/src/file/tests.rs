//! The registry in one process. Tests with several are in `tests/file_processes.rs`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::lock::{LockFile, Taken};
use super::names::Place;
use super::source::FileSource;
use super::{url, wire};
use crate::backend::{Source, Update};
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
        open(&format!("{}{query}", url(&self.root()))).unwrap()
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
        ("file:///C:/x?ttl=5s", "lives exactly as long as its owner"),
        ("file:///C:/x?drian=5s", "drain, grace"),
        ("file:///C:/x?drain=5", "duration"),
        ("file:///x%00y", "absolute path"),
    ] {
        let error = refused(open(url));
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        assert!(error.to_string().contains(says) && !error.to_string().contains("canary"), "{url}: {error}");
    }
    let registry = open("file:///C:/y%20z?drain=0s&verify=1s&grace=5s").unwrap();
    assert_eq!(format!("{registry:?}"), "file:///C:/y z");
    assert_eq!(registry.settings().grace, Duration::from_secs(5));
    assert_eq!(open("file:///C:/x").unwrap().settings().grace, Duration::ZERO);
}

#[test]
fn a_directory_survives_its_url() {
    for dir in ["/tmp/x", "/tmp/a b?c#d%20", "/tmp/书"] {
        let parsed = RegistryUrl::parse(&url(std::path::Path::new(dir))).unwrap();
        assert_eq!((parsed.scheme(), parsed.path()), ("file", dir));
    }
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
    until(&mut watch, "dropped", Snapshot::is_empty).await;
    let left: Vec<_> = fs::read_dir(dir.root().join("book")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn what_is_registered_comes_back_as_it_was() {
    let dir = TempDir::new();
    let registry = dir.registry();
    let full = Instance::new("Book.v1", "[::1]:50051")
        .and_then(|instance| instance.with_id("CON"))
        .and_then(|instance| instance.with_protocol("grpc"))
        .and_then(|instance| instance.with_zone("eu/1"))
        .and_then(|instance| instance.with_version("1"))
        .and_then(|instance| instance.with_metadata("schlüssel", "wert\n".repeat(1000)))
        .unwrap()
        .with_weight(0);
    let odd: Vec<_> = ["con", "../up", "a b", ".x", &"é".repeat(128), &"É".repeat(128)]
        .map(|id| full.clone().with_id(id).unwrap())
        .into_iter()
        .chain([full.clone()])
        .collect();
    let mut held = Vec::new();
    for instance in &odd {
        held.push(registry.register(instance.clone()).await.unwrap());
    }
    let mut watch = dir.registry().watch(full.service());
    let all = until(&mut watch, "all", |snapshot| snapshot.len() == odd.len()).await;
    for instance in &odd {
        assert_eq!(**all.get(instance.id()).unwrap().instance(), *instance);
    }
    assert_eq!(registry.services().await.unwrap(), [full.service().clone()]);
    for name in fs::read_dir(dir.root().join("%42ook.v1")).unwrap() {
        let name = name.unwrap().file_name().into_string().unwrap();
        assert!(name == name.to_lowercase() && name.is_ascii() && name.len() <= 255, "{name}");
    }
}

#[tokio::test]
async fn a_second_owner_is_a_conflict_that_ends_with_the_first() {
    let dir = TempDir::new();
    let (one, two) = (dir.registry(), dir.registry());
    let mut watch = two.watch(&book());
    let first = one.register(instance(1)).await.unwrap();
    let error = refused(two.register(instance(1).with_weight(9)).await);
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let says = error.to_string();
    assert!(says.contains("book/127.0.0.1:1") && says.contains(&std::process::id().to_string()), "{says}");
    assert!(first.status().is_registered());
    assert_eq!(until(&mut watch, "one", |s| s.len() == 1).await.iter().next().unwrap().weight(), 1);

    let mut second = two.keep_registered(instance(1).with_weight(9));
    status(&mut second, "refused", |r| r.status().error().is_some_and(|e| e.kind() == ErrorKind::Conflict))
        .await;
    first.deregister().await.unwrap();
    status(&mut second, "its turn", |r| r.status().is_registered()).await;
    until(&mut watch, "the second", |s| s.iter().any(|listed| listed.weight() == 9)).await;
}

/// Bound: registered again within 2 s.
#[tokio::test]
async fn what_is_removed_or_changed_by_hand_is_restored() {
    let dir = TempDir::new();
    let (here, there) = (dir.registry(), dir.registry());
    let mut watch = there.watch(&book());
    let mut registration = here.register(instance(1)).await.unwrap();
    let place = dir.place(&instance(1));
    until(&mut watch, "registered", |snapshot| snapshot.len() == 1).await;
    let by_hand: [(&str, &dyn Fn()); 5] = [
        ("entry", &|| fs::remove_file(&place.json).unwrap()),
        ("lock", &|| fs::remove_file(&place.lock).unwrap()),
        ("service", &|| fs::remove_dir_all(&place.dir).unwrap()),
        ("everything", &|| fs::remove_dir_all(dir.0.join("a")).unwrap()),
        ("content", &|| fs::write(&place.json, wire::encode(&instance(1).with_weight(5)).unwrap()).unwrap()),
    ];
    for (what, remove) in by_hand {
        let start = Instant::now();
        remove();
        status(&mut registration, "lost", |r| !r.status().is_registered()).await;
        status(&mut registration, "registered again", |r| r.status().is_registered()).await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "{what}: {took:?}");
        until(&mut watch, what, |s| s.len() == 1 && s.iter().all(|listed| listed.weight() == 1)).await;
        assert_eq!(fs::read(&place.json).unwrap(), wire::encode(&instance(1)).unwrap(), "{what}");
    }
    there.remove(&book(), instance(1).id()).await.unwrap();
    status(&mut registration, "removed", |r| !r.status().is_registered()).await;
    status(&mut registration, "restored", |r| r.status().is_registered()).await;
    until(&mut watch, "restored", |snapshot| snapshot.len() == 1).await;
}

#[tokio::test]
async fn the_loser_of_a_wiped_directory_writes_no_more() {
    let dir = TempDir::new();
    let mut first = dir.registry().register(instance(1)).await.unwrap();
    fs::remove_dir_all(dir.root()).unwrap();
    // Before the first looks again.
    let second = dir.registry().register(instance(1).with_weight(2)).await.unwrap();
    status(&mut first, "superseded", |r| matches!(r.status(), crate::Status::Superseded)).await;
    first.deregister().await.unwrap();
    assert!(second.status().is_registered());
    let there = fs::read(dir.place(&instance(1)).json).unwrap();
    assert_eq!(wire::decode(&there).unwrap().weight(), 2);
}

#[tokio::test]
async fn what_a_dead_owner_left_is_swept() {
    let dir = TempDir::new();
    let places = [instance(1), instance(2), instance(3)].map(|instance| {
        let place = dir.place(&instance);
        fs::create_dir_all(&place.dir).unwrap();
        fs::write(&place.json, wire::encode(&instance).unwrap()).unwrap();
        place
    });
    // Of a fourth there is only what it had before it could publish anything.
    let early = dir.place(&instance(4));
    fs::write(&early.lock, "1\n").unwrap();
    fs::write(&early.temp, "{").unwrap();
    // The second lost its lock file too; the third was cut short by a power failure.
    fs::write(&places[0].lock, "1\n").unwrap();
    fs::write(&places[2].lock, "1\n").unwrap();
    fs::write(&places[2].json, "").unwrap();
    fs::write(&places[2].temp, "{").unwrap();
    let registry = dir.registry();
    assert!(registry.services().await.unwrap().is_empty());
    for port in 1..=2 {
        let error = refused(registry.remove(&book(), instance(port).id()).await);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(!places[usize::from(port) - 1].json.exists(), "it is swept by the way");
    }
    let mut watch = registry.watch(&book());
    let snapshot = timeout(Duration::from_secs(5), watch.ready()).await.unwrap().unwrap();
    assert!(snapshot.is_empty() && snapshot.skipped() == 0, "{snapshot:?}");
    let left: Vec<_> = fs::read_dir(&places[0].dir).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    // Its id is free at once.
    let _again = registry.register(instance(1)).await.unwrap();
    until(&mut watch, "again", |snapshot| snapshot.len() == 1).await;
}

#[tokio::test]
async fn what_cannot_be_understood_is_skipped_and_left_alone() {
    let dir = TempDir::new();
    let registry = dir.registry();
    let _good = registry.register(instance(1)).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, "good", |snapshot| snapshot.len() == 1).await;
    let place = dir.place(&instance(1));
    let file = |name: &str| place.dir.join(name);
    fs::write(file("broken.json"), "{").unwrap();
    fs::write(file("utf8.json"), b"\xff\xfe").unwrap();
    fs::write(file("large.json"), vec![b' '; 2 << 20]).unwrap();
    fs::create_dir(file("dir.json")).unwrap();
    fs::copy(&place.json, file("copy.json")).unwrap();
    fs::write(file("notes.txt"), "").unwrap();
    let snapshot = until(&mut watch, "skipped", |snapshot| snapshot.skipped() == 5).await;
    assert_eq!(ids(&snapshot), ["127.0.0.1:1"]);
    for name in ["broken.json", "utf8.json", "large.json"] {
        fs::remove_file(file(name)).unwrap();
    }
    until(&mut watch, "two left", |snapshot| snapshot.skipped() == 2).await;
    // A new registry lists the same from scratch.
    let mut watch = dir.registry().watch(&book());
    until(&mut watch, "listed", |snapshot| snapshot.len() == 1 && snapshot.skipped() == 2).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let dir = TempDir::new();
    let file = dir.0.join("file");
    fs::write(&file, "").unwrap();
    for root in [file.clone(), file.join("below")] {
        let registry = open(&format!("{}?drain=0s", url(&root))).unwrap();
        let error = refused(registry.register(instance(1)).await);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(&*root.to_string_lossy()), "{error}");
        assert!(error.to_string().contains("not a directory"), "{error}");
        let mut watch = registry.watch(&book());
        let snapshot = until(&mut watch, "refused", |snapshot| snapshot.freshness().error().is_some()).await;
        assert_eq!(snapshot.freshness().error().unwrap().kind(), ErrorKind::Invalid);
        assert!(refused(registry.services().await).to_string().contains("not a directory"));
        assert!(!registry.check().await.is_ok());
    }
    assert_eq!(refused(dir.registry().remove(&book(), instance(1).id()).await).kind(), ErrorKind::NotFound);
}

/// Root may write anything but this.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_directory_that_may_not_be_written_is_named() {
    let registry = open("file:///sys/callsign?drain=0s").unwrap();
    let error = refused(registry.register(instance(1)).await);
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
    assert!(error.to_string().contains("/sys/callsign"), "{error}");
    let report = registry.check().await;
    assert!(report.write.is_refused() && !report.read.is_refused(), "{report}");
}

#[tokio::test]
async fn a_check_leaves_nothing_behind() {
    let dir = TempDir::new();
    let registry = dir.registry();
    let report = registry.check().await;
    assert!(report.is_ok(), "{report}");
    assert!(!dir.0.join("a").exists());
    let _held = registry.register(instance(1)).await.unwrap();
    assert!(registry.check().await.is_ok());
    let left: Vec<_> = fs::read_dir(dir.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["book"]);
}

/// Puts an entry in place as its owner does; it lives for as long as what is returned.
fn owned(dir: &TempDir, instance: &Instance) -> LockFile {
    let place = dir.place(instance);
    fs::create_dir_all(&place.dir).unwrap();
    let start = std::time::Instant::now();
    let lock = loop {
        match LockFile::take(&place.lock).unwrap() {
            Taken::Ours(lock) => break lock,
            // A reader looks at this very moment whether anybody owns it, or sweeps it since nobody does.
            Taken::Probed | Taken::Owned { .. } => {
                assert!(start.elapsed() < Duration::from_secs(10), "{place:?} is taken");
                std::thread::yield_now();
            }
        }
    };
    fs::write(&place.temp, wire::encode(instance).unwrap()).unwrap();
    fs::rename(&place.temp, &place.json).unwrap();
    lock
}

/// What a source has told, as one set.
fn apply(set: &mut std::collections::BTreeMap<String, u32>, update: Update) {
    match update {
        Update::Full(all) => *set = all.iter().map(|i| (i.id().to_string(), i.weight())).collect(),
        Update::Delta { put, gone } => {
            set.retain(|id, _| gone.iter().all(|(other, _)| other.as_str() != id));
            set.extend(put.iter().map(|i| (i.id().to_string(), i.weight())));
        }
    }
}

#[tokio::test]
async fn next_can_be_dropped_anywhere() {
    let dir = TempDir::new();
    let mut source = FileSource::new(dir.root().into(), &book());
    let mut told = std::collections::BTreeMap::new();
    let mut held = std::collections::BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..400u32 {
        let port = random.u16(1..20);
        match held.remove(&port) {
            None => drop(held.insert(port, owned(&dir, &instance(port).with_weight(round)))),
            Some(lock) if random.bool() => lock.remove_entry(&dir.place(&instance(port))).unwrap(),
            Some(dead) => drop(dead),
        }
        if random.u8(..8) == 0 {
            source.relist();
        }
        let patience = Duration::from_micros(random.u64(..800));
        if let Ok(update) = timeout(patience, source.next()).await {
            apply(&mut told, update.unwrap());
        }
    }
    let settled = async {
        let here = |told: &std::collections::BTreeMap<String, u32>| {
            told.len() == held.len()
                && held.keys().all(|port| told.contains_key(&format!("127.0.0.1:{port}")))
        };
        while !here(&told) {
            apply(&mut told, source.next().await.unwrap());
        }
    };
    timeout(Duration::from_secs(2), settled).await.expect("the set that is there");
}

/// As on systems that do not tell of a death, and where no more watches can be had.
#[tokio::test]
async fn without_notification_it_looks_every_half_second() {
    let dir = TempDir::new();
    let mut source = FileSource::new(dir.root().into(), &book());
    source.listen = |_| Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch));
    let mut told = std::collections::BTreeMap::new();
    apply(&mut told, source.next().await.unwrap());
    assert!(told.is_empty());
    let start = Instant::now();
    let lock = owned(&dir, &instance(1));
    apply(&mut told, source.next().await.unwrap());
    assert_eq!(told.len(), 1);
    drop(lock);
    apply(&mut told, source.next().await.unwrap());
    assert!(told.is_empty() && start.elapsed() < Duration::from_secs(2), "{told:?} {:?}", start.elapsed());
}

/// Whoever looks again because of its own looking never rests.
#[tokio::test]
async fn looking_is_no_news() {
    let dir = TempDir::new();
    let mut source = FileSource::new(dir.root().into(), &book());
    let _locks = [1, 2, 3].map(|port| owned(&dir, &instance(port)));
    source.next().await.unwrap();
    let other = dir.registry();
    let mut watch = other.watch(&book());
    until(&mut watch, "listed", |snapshot| snapshot.len() == 3).await;
    assert!(timeout(Duration::from_millis(700), source.next()).await.is_err(), "news of nothing");
}
