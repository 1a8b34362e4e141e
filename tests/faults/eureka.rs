//! The rows on Eureka. It keeps nothing on disk: whatever kills it wipes it too.

use callsign_testkit::eureka::EurekaFixture;

rows! {
    EurekaFixture;
    backends:
        row_6_backend_killed, row_7_backend_leaves, row_7_rolling_restarts, row_8_backend_frozen,
        row_8_no_zombie_overwrites_its_successor;
    changes:
        row_14_leases_revoked, row_15_keys_deleted, row_18_malformed_entries, row_22_flapping_entry,
        row_23_two_registrars_of_one_id;
    links:
        row_9_registrars_cut_off, row_10_instancer_cut_off, row_21_slow_link, row_21_resets;
    outages:
        row_1_killed_for_a_minute, row_2_frozen_for_half_a_minute, row_3_down_for_ten_ttls, row_4_wiped,
        row_5_wiped_and_one_dead;
}

/// What only Eureka has: peers that tell each other, users of its own, and entries that stay though their owners died.
mod alone {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use callsign::{ErrorKind, Snapshot};
    use callsign_testkit::eureka::{Api, Eureka, EurekaFixture};
    use callsign_testkit::fixture::{Fixture, Served, Tuning};
    use callsign_testkit::record::confirmed;
    use callsign_testkit::wait::{eventually, until};
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep};

    use crate::cast::Cast;
    use crate::scene::{Scene, TTL, TUNING, long};

    /// Within which everything is as it should again.
    const BACK: Duration = Duration::from_secs(8);

    fn url(hosts: &str, rest: &str, tuning: &Tuning) -> String {
        format!("eureka://{hosts}/eureka?poll=50ms{rest}&{}", tuning.query())
    }

    /// Row 11: of two peers one after the other is killed, and comes back.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn row_11_peers_killed() {
        let mut peers = Eureka::peers().await.unwrap();
        let hosts = peers.each_ref().map(|peer| peer.addr().to_string()).join(",");
        let url = url(&hosts, "", &TUNING);
        let mut cast = Cast::enter(&url, &url).await;
        let mut uncalled = cast.clients.watch(&"uncalled".parse().unwrap());
        let raws = peers.each_ref().map(|peer| Api::new(peer.addr()));
        let written = async |peer: usize| {
            let all = raws[peer].instances("book").await.unwrap_or_default();
            let of =
                |it: &serde_json::Value| (it["instanceId"].to_string(), it["lastDirtyTimestamp"].to_string());
            all.iter().map(of).collect::<BTreeSet<_>>()
        };
        for (peer, other) in [(0, 1), (1, 0)] {
            let before = written(peer).await;
            eventually(BACK, "both have all", async || before.len() == 4 && written(other).await == before)
                .await;
            peers[peer].kill();
            let begun = Instant::now();
            raws[other].register("uncalled", "theirs", "10.0.0.1", 1, &json!({})).await.unwrap();
            until(&mut uncalled, Duration::from_secs(5), "a change is seen", |s| confirmed(s).len() == 1)
                .await;
            println!("measured: changes are seen again after {:?}", begun.elapsed());
            sleep(long(8, 30)).await;
            assert_eq!(written(other).await, before, "nobody had to register again");
            raws[other].delete("uncalled", "theirs").await.unwrap();
            peers[peer].start().await.unwrap();
            cast.is_exact(BACK).await;
            until(&mut uncalled, BACK, "its end is seen", |s| confirmed(s).is_empty()).await;
        }
        cast.end_unharmed().await;
    }

    /// Row 16: the right to read is taken away, then the password is changed under everybody.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn row_16_rights_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let (users, password) = (folder.path().join("users"), folder.path().join("password"));
        let permit = |word: &str, may: &str| std::fs::write(&users, format!("book {word} {may}")).unwrap();
        permit("first", "READ WRITE");
        std::fs::write(&password, "first").unwrap();
        let mut server = Eureka::server_with(&[&format!("testbed.users={}", users.display())]).unwrap();
        server.start().await.unwrap();
        let rest = format!("&password_file={}", password.display());
        let url = url(&format!("book@{}", server.addr()), &rest, &TUNING);
        let mut cast = Cast::enter(&url, &url).await;
        for kind in [ErrorKind::PermissionDenied, ErrorKind::Unauthenticated] {
            let begun = Instant::now();
            if kind == ErrorKind::PermissionDenied {
                permit("first", "WRITE");
            } else {
                permit("second", "READ WRITE");
            }
            let says = |s: &Snapshot| s.freshness().error().is_some_and(|error| error.kind() == kind);
            until(&mut cast.watch, Duration::from_secs(35), "it shows", says).await;
            println!("measured: {kind:?} shows after {:?}", begun.elapsed());
            // Longer than entries live: all expire, and clients keep what they have.
            sleep(TTL + long(3, 30)).await;
            let begun = Instant::now();
            if kind == ErrorKind::PermissionDenied {
                permit("first", "READ WRITE");
            } else {
                std::fs::write(&password, "second").unwrap();
            }
            cast.is_exact(Duration::from_secs(60)).await;
            println!("measured: recovered from {kind:?} after {:?}", begun.elapsed());
        }
        cast.end_unharmed().await;
    }

    /// Something before a server that takes no more requests for now, as a limit of rates does: it counts them.
    async fn limited() -> (SocketAddr, Arc<AtomicU64>, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, refused) = (listener.local_addr().unwrap(), Arc::<AtomicU64>::default());
        let (mut tasks, counted) = (JoinSet::new(), Arc::clone(&refused));
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                let answer = b"HTTP/1.1 503 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
            }
        });
        (addr, refused, tasks)
    }

    /// Row 17: requests are refused by 503: whoever follows says so, keeps what it has and does not press; whoever is
    /// registered tries again in time.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn row_17_too_many_requests() {
        let mut scene = Scene::<EurekaFixture>::set(TUNING).await;
        let before = scene.fixture.written(&scene.cast.service).await.unwrap();
        assert_eq!(before.len(), 4);
        let (link, server) = (scene.fixture.link().unwrap(), scene.fixture.addr().await);
        let (limit, refused, _limiting) = limited().await;
        link.redirect(limit);
        scene.goes_stale(Duration::from_secs(2)).await;
        let exhausted = scene.cast.watch.snapshot();
        let error = exhausted.freshness().error().unwrap();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{}", error.chain());
        let (before_that, length) = (refused.load(Ordering::Relaxed), long(10, 60));
        sleep(length).await;
        let tries = refused.load(Ordering::Relaxed) - before_that;
        println!("measured: {tries} tries of a watch in {length:?}");
        assert!(tries <= length.as_secs(), "{tries} tries: one in a second, or fewer");
        assert_eq!(scene.cast.watch.snapshot().len(), 4);
        // All who are registered are refused once, and answered when they try again.
        let (limit, refused, _limiting) = limited().await;
        scene.servers_link.redirect(limit);
        let each = async || refused.load(Ordering::Relaxed) >= 4;
        eventually(TTL, "all are refused", each).await;
        scene.servers_link.redirect(server);
        scene.fixture.link().unwrap().redirect(server);
        scene.recovers(BACK).await;
        sleep(TTL).await;
        let after = scene.fixture.written(&scene.cast.service).await.unwrap();
        assert_eq!(after, before, "nobody had to register again");
        scene.cast.end_unharmed().await;
    }

    /// Row 25: Eureka takes mass death for a fault of the network, and lists the dead: calls go to who lives.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn row_25_dead_entries_stay() {
        let server = Eureka::server_with(&[
            "eureka.server.enable-self-preservation=true",
            "eureka.server.renewal-percent-threshold=0.85",
            // More than come.
            "eureka.server.expected-client-renewal-interval-seconds=1",
        ]);
        let fixture = EurekaFixture::start_in(server, callsign::open).await;
        let mut scene = Scene::<EurekaFixture>::set_in(fixture, TUNING).await;
        let alive = scene.cast.backends[3].id.clone();
        let killed = Instant::now();
        scene.cast.backends.drain(..3);
        sleep(TTL * 2 + long(3, 20)).await;
        let raw = scene.fixture.raw();
        assert_eq!(raw.instances("book").await.unwrap().len(), 4, "Eureka has let them go");
        assert_eq!(confirmed(&scene.cast.watch.snapshot()).len(), 4);
        scene.cast.recorder.check_never_missing(&[alive]);
        let (calls, failures) = scene.cast.traffic.finish().await;
        let late: Vec<_> =
            failures.iter().filter(|failed| failed.ended - killed > Duration::from_millis(500)).collect();
        println!("measured: {} of {calls} calls failed, {} late", failures.len(), late.len());
        assert!(late.is_empty() && failures.len() <= 9, "{failures:?}");
    }

    /// Row 26: the server's certificate rotates, expires and is replaced.
    #[cfg(feature = "tls")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn row_26_certificates_rotate_and_expire() {
        let secured = callsign_testkit::eureka::SecuredEureka::start().await.unwrap();
        let url = secured.url(&format!("poll=50ms&{}", TUNING.query()));
        let mut cast = Cast::enter(&url, &url).await;
        // It reads its files anew a moment after they have changed; connections that there are stay as they are.
        let reloads = async || {
            sleep(Duration::from_secs(2)).await;
            secured.link.reset();
        };
        secured.pki.issue("server", &["127.0.0.1"]).unwrap();
        reloads().await;
        cast.is_exact(BACK).await;
        secured.pki.issue_expired("server", &["127.0.0.1"]).unwrap();
        reloads().await;
        let begun = Instant::now();
        let expired =
            |s: &Snapshot| s.freshness().error().is_some_and(|error| error.chain().contains("expired"));
        until(&mut cast.watch, Duration::from_secs(6), "it shows", expired).await;
        println!("measured: expiry shows after {:?}", begun.elapsed());
        // Longer than entries live: all expire, and clients keep what they have.
        sleep(TTL + long(3, 55)).await;
        secured.pki.issue("server", &["127.0.0.1"]).unwrap();
        reloads().await;
        let begun = Instant::now();
        cast.is_exact(BACK).await;
        println!("measured: recovered after {:?}", begun.elapsed());
        cast.end_unharmed().await;
    }
}
