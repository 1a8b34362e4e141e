//! Row 17 on ZooKeeper: it takes no more connections from a machine than it is configured to.

use std::time::Duration;

use callsign::{ErrorKind, Snapshot};
use callsign_testkit::fixture::{Fixture, Served};
use callsign_testkit::wait::{ok, until};
use callsign_testkit::zookeeper::{Format, Held, ZooKeeperFixture};
use tokio::time::{sleep, timeout};

use crate::scene::{BACK, Scene, TTL, TUNING, long};

/// By default ZooKeeper allows so many connections to a machine; and here sessions that live for as long as the row takes.
const CONFIG: [&str; 2] = ["maxClientCnxns=60", "maxSessionTimeout=600000"];
const ALLOWED: usize = 60;

/// Sessions that do nothing, until no more are allowed: also none of those that are found closed a moment later.
async fn hog(scene: &Scene<ZooKeeperFixture>) -> Vec<Held> {
    let (mut hogs, mut refused) = (Vec::new(), 0);
    while refused < 20 {
        assert!(hogs.len() <= ALLOWED, "more than {ALLOWED} connections are allowed");
        // One too many is closed at once.
        match timeout(Duration::from_secs(5), scene.fixture.raw().hold()).await.unwrap() {
            Ok(held) => {
                hogs.push(held);
                refused = 0;
            }
            Err(_) => {
                refused += 1;
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
    hogs
}

/// Whoever has a connection goes on, whoever has none says so, keeps what it has, and does not press.
pub(crate) async fn row_17_no_connection_is_free() {
    let fixture = ZooKeeperFixture::with_more(callsign::open, Format::Curator, &CONFIG).await;
    let mut scene = Scene::set_in(fixture, TUNING).await;
    let before = scene.fixture.written(&scene.cast.service).await.unwrap();
    assert_eq!(before.len(), 4);
    let hogs = hog(&scene).await;
    println!("measured: {} connections were free", hogs.len());
    let refuses =
        |s: &Snapshot| s.freshness().error().is_some_and(|error| error.kind() == ErrorKind::Unavailable);
    let late = ok(scene.fixture.open(&TUNING), "open");
    let mut late_watch = late.watch(&scene.cast.service);
    until(&mut late_watch, Duration::from_secs(5), "it is told", refuses).await;
    println!("measured: the newcomer says: {:?}", late_watch.snapshot().freshness());
    // Longer than a session lives that nobody renews.
    sleep(TTL + long(3, 30)).await;
    assert!(scene.cast.watch.snapshot().freshness().is_fresh(), "{:?}", scene.cast.watch.snapshot());
    // The watch loses its connection, and gets no other, and its session ends.
    scene.fixture.link().unwrap().cut();
    scene.goes_stale(Duration::from_secs(2)).await;
    let more = hog(&scene).await;
    scene.fixture.link().unwrap().heal();
    let accepted = scene.fixture.link().unwrap().accepted();
    // Its client returns, and is asked for, more often while its session may still live; and pauses are random. It is their
    // mean that counts.
    let length = TTL * 2 + long(10, 30);
    sleep(length).await;
    let tries = scene.fixture.link().unwrap().accepted() - accepted;
    println!("measured: {tries} tries of two watches in {length:?}");
    assert!(tries <= 2 * length.as_secs(), "{tries} tries: one in a second each, or fewer");
    let stale = scene.cast.watch.snapshot();
    assert!(refuses(&stale) && stale.len() == 4, "{stale:?}");
    drop((hogs, more));
    scene.recovers(Duration::from_secs(10)).await;
    until(&mut late_watch, BACK, "listed", |s| s.len() == 4).await;
    let after = scene.fixture.written(&scene.cast.service).await.unwrap();
    assert_eq!(after, before, "nothing had to be registered again");
    scene.cast.end_unharmed().await;
}
