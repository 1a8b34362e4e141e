//! Rows 17 and 24: an agent of Consul that allows no more connections, that is restarted, whose index goes back.

use std::time::Duration;

use callsign::{ErrorKind, Snapshot};
use callsign_testkit::consul::{Consul, ConsulFixture};
use callsign_testkit::fixture::{Fixture, Served, Tuning};
use callsign_testkit::server::Server;
use callsign_testkit::wait::{eventually, ok, until};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::cast::Cast;
use crate::scene::{BACK, Scene, TUNING, long};

/// By default an agent allows so many connections to a machine.
const ALLOWED: usize = 200;

/// Its peers must notice that it lives, and what is registered may be with a node of its name that is no more.
const RETURNS: Duration = Duration::from_secs(30);

/// Connections that do nothing, until the agent allows no more: also none of those that it finds closed a moment later.
async fn hog(scene: &Scene<ConsulFixture>) -> Vec<TcpStream> {
    let addr = scene.fixture.raw().addr();
    let (mut hogs, mut refused) = (Vec::new(), 0);
    while refused < 20 {
        assert!(hogs.len() <= ALLOWED, "the agent allows more than {ALLOWED} connections");
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // To one too many it says so at once.
        if timeout(Duration::from_millis(50), stream.read(&mut [0; 64])).await.is_ok() {
            refused += 1;
            sleep(Duration::from_millis(50)).await;
        } else {
            refused = 0;
            hogs.push(stream);
        }
    }
    hogs
}

/// Row 17: whoever has a connection goes on, whoever has none is told why, and keeps what it has.
pub(crate) async fn row_17_no_connection_is_free() {
    let mut scene = Scene::<ConsulFixture>::set(TUNING).await;
    let before = scene.fixture.written(&scene.cast.service).await.unwrap();
    let hogs = hog(&scene).await;
    let exhausted = |s: &Snapshot| s.freshness().error().is_some_and(|e| e.kind() == ErrorKind::Exhausted);
    let late = ok(scene.fixture.open(&TUNING), "open");
    let mut late_watch = late.watch(&scene.cast.service);
    until(&mut late_watch, Duration::from_secs(5), "it is told", exhausted).await;
    // Longer than what nobody renews lives.
    sleep(long(8, 30)).await;
    assert!(scene.cast.watch.snapshot().freshness().is_fresh(), "{:?}", scene.cast.watch.snapshot());
    // The watch loses its connection, and gets no other.
    scene.fixture.link().unwrap().cut();
    scene.goes_stale(Duration::from_secs(2)).await;
    let more = hog(&scene).await;
    scene.fixture.link().unwrap().heal();
    until(&mut scene.cast.watch, Duration::from_secs(10), "it is told too", exhausted).await;
    let accepted = scene.fixture.link().unwrap().accepted();
    sleep(long(6, 30)).await;
    let tries = scene.fixture.link().unwrap().accepted() - accepted;
    let bound = 2 * long(6, 30).as_secs();
    assert!(
        tries <= bound,
        "{tries} tries of two watches in {:?}: one in a second each, or fewer",
        long(6, 30)
    );
    drop((hogs, more));
    scene.recovers(Duration::from_secs(10)).await;
    until(&mut late_watch, Duration::from_secs(10), "listed", |s| s.len() == 4).await;
    let after: std::collections::BTreeSet<_> = scene.fixture.written(&scene.cast.service).await.unwrap();
    assert_eq!(after, before, "nothing had to be registered again");
    scene.cast.end_unharmed().await;
}

/// Row 24: killed and started again at once, with its data, over and over.
pub(crate) async fn row_24_agent_restarted() {
    restart(ConsulFixture::start(callsign::open).await).await;
}

/// Row 24: the same with one that keeps nothing on disk.
pub(crate) async fn row_24_agent_for_development_restarted() {
    restart(ConsulFixture::start_dev(callsign::open).await).await;
}

async fn restart(fixture: ConsulFixture) {
    let mut scene = Scene::set_in(fixture, TUNING).await;
    for _ in 0..long(3, 10).as_secs() {
        scene.fixture.kill().await.unwrap();
        scene.fixture.start().await.unwrap();
        let begun = Instant::now();
        scene.recovers(BACK).await;
        println!("measured: all are back {:.1?} after the restart", begun.elapsed());
    }
    scene.cast.end_unharmed().await;
}

/// Row 24: Consul is restored from a copy that is older than all that is registered.
pub(crate) async fn row_24_index_goes_back() {
    let fixture = ConsulFixture::start(callsign::open).await;
    let snapshot = fixture.raw().snapshot().await.unwrap();
    let mut scene = Scene::set_in(fixture, Tuning { verify: Some(Duration::from_secs(2)), ..TUNING }).await;
    for n in 0..50 {
        scene.fixture.raw().register("elsewhere", &format!("e{n}"), "10.0.0.1", 1).await.unwrap();
    }
    for _ in 0..long(3, 10).as_secs() {
        scene.fixture.raw().restore(&snapshot).await.unwrap();
        let begun = Instant::now();
        scene.recovers(BACK).await;
        println!("measured: all are back {:.1?} after Consul was restored", begun.elapsed());
        // It was alive all the time, as its agent knows.
        assert!(!scene.fixture.log().await.contains("missed TTL"), "{}", scene.fixture.log().await);
    }
    scene.cast.end_unharmed().await;
}

/// Row 24: backends have an agent of their own, their clients another. That of the backends is killed and started, with
/// its data and without, and frozen: clients keep what the catalog takes for lost with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_24_agent_of_the_backends_restarted() {
    let mut datacenter = Consul::datacenter().await.unwrap();
    let tuning = Tuning { grace: Some(long(30, 90)), ..TUNING };
    let url = |agent: &Server<Consul>| format!("consul://{}/?{}", agent.addr(), tuning.query());
    let mut cast = Cast::enter(&url(&datacenter.clients[0]), &url(&datacenter.clients[1])).await;
    let raw = Consul::raw(&datacenter.clients[1]);
    for how in ["kept", "frozen", "wiped"] {
        let agent = &mut datacenter.clients[0];
        match how {
            "frozen" => agent.pause().unwrap(),
            "wiped" => agent.wipe(),
            _ => agent.kill(),
        }
        // Longer than it takes its peers to notice.
        sleep(long(12, 60)).await;
        let lost = raw.alive("book").await.unwrap().len();
        println!("measured: of an agent that is {how}, the catalog takes {lost} of 4 for alive");
        assert!(cast.watch.snapshot().freshness().is_fresh());
        if how == "frozen" {
            agent.resume().unwrap();
        } else {
            agent.start().await.unwrap();
        }
        let begun = Instant::now();
        eventually(RETURNS, "all are alive", async || {
            raw.alive("book").await.is_ok_and(|alive| alive.len() == 4)
        })
        .await;
        cast.is_exact(Duration::from_secs(1)).await;
        println!("measured: all are back {:.1?} after it was back", begun.elapsed());
    }
    cast.end_unharmed().await;
}
