//! Rows 16 and 26 on ZooKeeper: a server with TLS, whose nodes' ACLs and whose certificate change.

use std::time::Duration;

use callsign::{ErrorKind, Instance, InstanceId, Registration, Snapshot, Status};
use callsign_testkit::fixture::Tuning;
use callsign_testkit::record::confirmed;
use callsign_testkit::wait::{eventually, until, until_status};
use callsign_testkit::zookeeper::SecuredServer;
use tokio::time::{Instant, sleep};

use crate::cast::Cast;
use crate::scene::{BACK, TUNING, long};

const BOOK: &str = "/services/book";
/// A service that nobody calls.
const UNCALLED: &str = "/services/uncalled";
/// The rights to a node that make up all of them.
const READ: i32 = 1;
const ALL: i32 = 31;

struct Scene {
    server: SecuredServer,
    cast: Cast,
    /// Of the service that nobody calls, in a session of its own.
    uncalled: Registration,
}

impl Scene {
    async fn set(tuning: Tuning) -> Self {
        let server = SecuredServer::start().await.unwrap();
        let url = server.url(&tuning.query());
        let cast = Cast::enter(&url, &url).await;
        let registry = callsign::open(&url).unwrap();
        let instance = Instance::new("uncalled", "10.0.0.1:1").unwrap();
        let uncalled = registry.register(instance).await.unwrap();
        Self { server, cast, uncalled }
    }

    /// A change arrives, within `within`.
    async fn follows(&mut self, within: Duration) {
        let extra = InstanceId::new("10.0.0.1:1").unwrap();
        let path = format!("{BOOK}/{extra}");
        // Draining, so that nobody calls it.
        let data = br#"{"address":"10.0.0.1","port":1,"payload":null,"callsign":{"state":"draining"}}"#;
        self.server.raw().put(&path, data).await.unwrap();
        until(&mut self.cast.watch, within, "the change arrives", |s| s.get(&extra).is_some()).await;
        assert!(self.server.raw().delete(&path).await.unwrap());
        // What goes soon after an outage is held for a while.
        until(&mut self.cast.watch, within, "its end arrives", |s| !confirmed(s).contains(&extra)).await;
    }

    /// How many nodes of backends there are.
    async fn alive(&self) -> usize {
        self.server.raw().children(BOOK).await.unwrap().len()
    }

    /// Leaves everybody these rights to the nodes of the services.
    async fn permit(&self, rights: i32) {
        for node in [BOOK, UNCALLED] {
            self.server.raw().permit(node, rights).await.unwrap();
        }
    }

    /// Ends the sessions of all that is registered.
    async fn end_sessions(&self) {
        let raw = self.server.raw();
        for node in [BOOK, UNCALLED] {
            for name in raw.children(node).await.unwrap() {
                let owner = raw.get(&format!("{node}/{name}")).await.unwrap().unwrap().owner;
                raw.end_session(owner).await.unwrap();
            }
        }
    }
}

fn refused(snapshot: &Snapshot) -> bool {
    snapshot.freshness().error().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Row 16: the right to read is taken away for a while; then that to write, when all have to register anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_16_rights_revoked() {
    // Asked every 2 s in the short form, and every 30 s, as by default, in the long one.
    let full = callsign_testkit::conformance::full();
    let (verify, shows) = if full { (None, 35) } else { (Some(Duration::from_secs(2)), 6) };
    let shows = Duration::from_secs(shows);
    let mut scene = Scene::set(Tuning { verify, ..TUNING }).await;

    let begun = Instant::now();
    scene.permit(ALL - READ).await;
    until(&mut scene.cast.watch, shows, "it shows to who reads", refused).await;
    println!("measured: readers know after {:?}", begun.elapsed());
    sleep(long(5, 30)).await;
    scene.permit(ALL).await;
    let begun = Instant::now();
    scene.cast.is_exact(Duration::from_secs(60)).await;
    println!("measured: readers recovered after {:?}", begun.elapsed());
    assert!(scene.uncalled.status().is_registered(), "who may not read registers on");
    scene.follows(Duration::from_secs(5)).await;

    scene.permit(READ).await;
    scene.end_sessions().await;
    let begun = Instant::now();
    let told = |status: &Status| {
        status.error().is_some_and(|error| error.chain().contains("ACL") && !status.is_registered())
    };
    until_status(&mut scene.uncalled, shows, "it shows to who writes", told).await;
    println!("measured: writers know after {:?}", begun.elapsed());
    sleep(long(5, 20)).await;
    assert_eq!(scene.alive().await, 0, "nobody can register");
    scene.permit(ALL).await;
    let begun = Instant::now();
    eventually(Duration::from_secs(60), "all are registered", async || scene.alive().await == 4).await;
    scene.cast.is_exact(Duration::from_secs(60).saturating_sub(begun.elapsed())).await;
    until_status(&mut scene.uncalled, Duration::from_secs(60), "registered", Status::is_registered).await;
    println!("measured: writers recovered after {:?}", begun.elapsed());
    scene.follows(Duration::from_secs(5)).await;
    scene.cast.end_unharmed().await;
}

/// Row 26: the server's certificate rotates, expires and is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_26_certificates_rotate_and_expire() {
    let mut scene = Scene::set(TUNING).await;
    scene.server.replace_certificate(false).unwrap();
    scene.server.link.reset();
    scene.follows(BACK).await;
    assert_eq!(scene.alive().await, 4);
    scene.server.replace_certificate(true).unwrap();
    scene.server.link.reset();
    let begun = Instant::now();
    let expired = |s: &Snapshot| s.freshness().error().is_some_and(|error| error.chain().contains("expired"));
    until(&mut scene.cast.watch, BACK, "it shows", expired).await;
    println!("measured: expiry shows after {:?}", begun.elapsed());
    // Longer than entries live: all expire, and clients keep what they have.
    sleep(long(8, 60)).await;
    assert_eq!(scene.alive().await, 0);
    scene.server.replace_certificate(false).unwrap();
    let begun = Instant::now();
    scene.cast.is_exact(BACK + Duration::from_secs(1)).await;
    println!("measured: recovered after {:?}", begun.elapsed());
    assert_eq!(scene.alive().await, 4);
    scene.cast.end_unharmed().await;
}
