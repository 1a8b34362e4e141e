//! Rows 11, 16 and 26: a cluster of three with TLS and users, whose members die, whose rights and certificates change.

use std::collections::BTreeSet;
use std::time::Duration;

use callsign::{Error, ErrorKind, InstanceId, Snapshot};
use callsign_testkit::etcd::SecuredCluster;
use callsign_testkit::fixture::Tuning;
use callsign_testkit::record::confirmed;
use callsign_testkit::wait::{eventually, until};
use tokio::time::{Instant, sleep};

use crate::cast::Cast;
use crate::scene::{BACK, TUNING, long};

/// A cluster, and whoever is in it.
struct Scene {
    cluster: SecuredCluster,
    cast: Cast,
}

impl Scene {
    async fn set(tuning: Tuning) -> Self {
        let cluster = SecuredCluster::start("first").await.unwrap();
        let url = cluster.url(&tuning.query());
        let cast = Cast::enter(&url, &url).await;
        Self { cluster, cast }
    }

    /// The keys and leases that there are, by what a member knows.
    async fn leases(&self, member: usize) -> BTreeSet<(String, i64)> {
        let entries = self.cluster.root(member).await.unwrap().list("services/book/").await.unwrap();
        entries.into_iter().map(|entry| (entry.key, entry.lease)).collect()
    }

    /// A change arrives, within `within`.
    async fn follows(&mut self, member: usize, within: Duration) {
        let root = self.cluster.root(member).await.unwrap();
        let extra = InstanceId::new("10.0.0.1:1").unwrap();
        // Draining, so that nobody calls it.
        let value = r#"{"Op":0,"Addr":"10.0.0.1:1","Metadata":null,"callsign":{"state":"draining"}}"#;
        root.put("services/book/10.0.0.1:1", value.as_bytes(), 0).await.unwrap();
        until(&mut self.cast.watch, within, "the change arrives", |s| s.get(&extra).is_some()).await;
        root.delete("services/book/10.0.0.1:1").await.unwrap();
        // What goes soon after an outage is held for a while.
        until(&mut self.cast.watch, within, "its end arrives", |s| !confirmed(s).contains(&extra)).await;
    }
}

fn says(snapshot: &Snapshot, holds: impl Fn(&Error) -> bool) -> bool {
    snapshot.freshness().error().is_some_and(holds)
}

/// Row 11: one member after the other is killed, the leader among them, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_members_killed() {
    let mut scene = Scene::set(TUNING).await;
    let leases = scene.leases(0).await;
    assert_eq!(leases.len(), 4);
    for member in 0..3 {
        scene.cluster.members[member].kill();
        let begun = Instant::now();
        let other = (member + 1) % 3;
        // Without the leader nothing can be written at first.
        eventually(Duration::from_secs(5), "another leads", async || scene.cluster.root(other).await.is_ok())
            .await;
        scene.follows(other, Duration::from_secs(5)).await;
        println!("measured: changes arrive again after {:?}", begun.elapsed());
        sleep(long(5, 30)).await;
        assert_eq!(scene.leases(other).await, leases, "nothing had to be registered again");
        scene.cluster.members[member].start().await.unwrap();
        scene.cast.is_exact(BACK).await;
    }
    scene.cast.end_unharmed().await;
}

/// Row 16: the right to read and write is taken away for a while, then the password is changed under everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_16_rights_revoked() {
    // Asked every 2 s in the short form, and every 25 s, as by default, in the long one.
    let full = callsign_testkit::conformance::full();
    let (verify, shows) = if full { (None, 35) } else { (Some(Duration::from_secs(2)), 6) };
    let shows = Duration::from_secs(shows);
    let mut scene = Scene::set(Tuning { verify, ..TUNING }).await;
    for kind in [ErrorKind::PermissionDenied, ErrorKind::Unauthenticated] {
        let begun = Instant::now();
        if kind == ErrorKind::PermissionDenied {
            scene.cluster.permit(false).await.unwrap();
        } else {
            scene.cluster.change_password("second").await.unwrap();
        }
        until(&mut scene.cast.watch, shows, "it shows", |s| says(s, |error| error.kind() == kind)).await;
        println!("measured: {kind:?} shows after {:?}", begun.elapsed());
        sleep(long(5, 30)).await;
        let begun = Instant::now();
        if kind == ErrorKind::PermissionDenied {
            scene.cluster.permit(true).await.unwrap();
        } else {
            scene.cluster.write_password("second").unwrap();
        }
        scene.cast.is_exact(Duration::from_secs(60)).await;
        println!("measured: recovered from {kind:?} after {:?}", begun.elapsed());
        scene.follows(1, Duration::from_secs(5)).await;
    }
    scene.cast.end_unharmed().await;
}

/// Row 26: the members' certificate rotates, expires and is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_26_certificates_rotate_and_expire() {
    let mut scene = Scene::set(TUNING).await;
    let issue = |scene: &Scene| drop(scene.cluster.pki.issue("server", &["127.0.0.1"]).unwrap());
    issue(&scene);
    scene.cluster.reset();
    scene.follows(0, Duration::from_secs(6)).await;
    scene.cluster.pki.issue_expired("server", &["127.0.0.1"]).unwrap();
    scene.cluster.reset();
    let expired = |s: &Snapshot| says(s, |error| error.chain().contains("expired"));
    until(&mut scene.cast.watch, Duration::from_secs(6), "it shows", expired).await;
    // Longer than entries live: all expire in etcd, and clients keep what they have.
    sleep(long(8, 60)).await;
    assert_eq!(scene.leases(1).await.len(), 0);
    issue(&scene);
    let begun = Instant::now();
    scene.cast.is_exact(BACK + Duration::from_secs(1)).await;
    println!("measured: recovered after {:?}", begun.elapsed());
    assert_eq!(scene.leases(1).await.len(), 4);
    scene.cast.end_unharmed().await;
}
