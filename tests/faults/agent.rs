//! Rows 16 and 26 on Consul: an agent with TLS and access rules, whose tokens and certificates change.

use std::time::Duration;

use callsign::{ErrorKind, InstanceWatch, Snapshot};
use callsign_testkit::consul::SecuredAgent;
use callsign_testkit::fixture::Tuning;
use callsign_testkit::record::confirmed;
use callsign_testkit::wait::{eventually, until};
use tokio::time::{Instant, sleep};

use crate::cast::Cast;
use crate::scene::{BACK, TUNING, long};

const FIRST: &str = "00000000-0000-4000-8000-000000000001";
const SECOND: &str = "00000000-0000-4000-8000-000000000002";

struct Scene {
    agent: SecuredAgent,
    cast: Cast,
    /// A service that nobody calls.
    uncalled: InstanceWatch,
}

impl Scene {
    async fn set(tuning: Tuning) -> Self {
        let agent = SecuredAgent::start(FIRST).await.unwrap();
        let url = agent.url(&tuning.query());
        let cast = Cast::enter(&url, &url).await;
        let uncalled = cast.clients.watch(&"uncalled".parse().unwrap());
        Self { agent, cast, uncalled }
    }

    /// A change arrives, within `within`.
    async fn follows(&mut self, within: Duration) {
        self.agent.raw().write("elsewhere", "uncalled", "10.0.0.1", 1).await.unwrap();
        until(&mut self.uncalled, within, "the change arrives", |s| confirmed(s).len() == 1).await;
        self.agent.raw().delete("elsewhere").await.unwrap();
        // What goes soon after an outage is held for a while.
        until(&mut self.uncalled, within, "its end arrives", |s| confirmed(s).is_empty()).await;
    }

    /// How many backends are alive, by what the agent itself knows. With a token that is no more it cannot tell the
    /// catalog.
    async fn alive(&self) -> usize {
        let checks = self.agent.raw().get("agent/checks").await.unwrap();
        let checks = checks.as_object().unwrap().values();
        checks.filter(|check| check["ServiceName"] == "book" && check["Status"] == "passing").count()
    }
}

/// Row 16: the right to read is taken away for a while, then the token is deleted, and another one takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_16_rights_revoked() {
    // Asked every 2 s in the short form, and every 20 s, as by default, in the long one.
    let full = callsign_testkit::conformance::full();
    let (verify, shows) = if full { (None, 35) } else { (Some(Duration::from_secs(2)), 6) };
    let shows = Duration::from_secs(shows);
    let mut scene = Scene::set(Tuning { verify, ..TUNING }).await;
    for kind in [ErrorKind::PermissionDenied, ErrorKind::Unauthenticated] {
        let begun = Instant::now();
        if kind == ErrorKind::PermissionDenied {
            scene.agent.permit(FIRST, false).await.unwrap();
        } else {
            scene.agent.delete(FIRST).await.unwrap();
        }
        let said = |s: &Snapshot| s.freshness().error().is_some_and(|error| error.kind() == kind);
        until(&mut scene.cast.watch, shows, "it shows", said).await;
        println!("measured: {kind:?} shows after {:?}", begun.elapsed());
        if kind == ErrorKind::Unauthenticated {
            // Who may only not read registers on; without a token nobody does.
            eventually(BACK + Duration::from_secs(1), "all expire", async || scene.alive().await == 0).await;
        }
        sleep(long(5, 30)).await;
        let begun = Instant::now();
        if kind == ErrorKind::PermissionDenied {
            assert_eq!(scene.alive().await, 4);
            scene.agent.permit(FIRST, true).await.unwrap();
        } else {
            scene.agent.create(SECOND).await.unwrap();
            scene.agent.write_token(SECOND).unwrap();
        }
        eventually(Duration::from_secs(60), "all live again", async || scene.alive().await == 4).await;
        let left = Duration::from_secs(60).saturating_sub(begun.elapsed());
        scene.cast.is_exact(left).await;
        println!("measured: recovered from {kind:?} after {:?}", begun.elapsed());
        scene.follows(Duration::from_secs(5)).await;
    }
    scene.cast.end_unharmed().await;
}

/// Row 26: the agent's certificate rotates, expires and is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_26_certificates_rotate_and_expire() {
    let mut scene = Scene::set(TUNING).await;
    let names = ["127.0.0.1"];
    scene.agent.pki.issue("server", &names).unwrap();
    scene.agent.reload().await.unwrap();
    scene.follows(BACK).await;
    scene.agent.pki.issue_expired("server", &names).unwrap();
    scene.agent.reload().await.unwrap();
    let begun = Instant::now();
    let expired = |s: &Snapshot| s.freshness().error().is_some_and(|error| error.chain().contains("expired"));
    until(&mut scene.cast.watch, BACK, "it shows", expired).await;
    println!("measured: expiry shows after {:?}", begun.elapsed());
    // Longer than entries live: all expire, and clients keep what they have.
    sleep(long(8, 60)).await;
    assert_eq!(scene.alive().await, 0);
    scene.agent.pki.issue("server", &names).unwrap();
    scene.agent.reload().await.unwrap();
    let begun = Instant::now();
    scene.cast.is_exact(BACK + Duration::from_secs(1)).await;
    println!("measured: recovered after {:?}", begun.elapsed());
    assert_eq!(scene.alive().await, 4);
    scene.cast.end_unharmed().await;
}
