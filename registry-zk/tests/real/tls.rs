//! TLS, and what is said where it is missing or wrong.

use callsign_core::{Error, Finding, Instance, Registry, Report, Snapshot, Status};
use callsign_testkit::pki::{Identity, Pki};
use callsign_testkit::record::Recorder;
use callsign_testkit::wait::{eventually, ok, until, until_status};
use callsign_testkit::zookeeper::SecuredServer;
use tokio::time::Instant;

use crate::{SOON, open};

fn instance(port: u16) -> Instance {
    Instance::new("book", format!("127.0.0.1:{port}")).unwrap()
}

fn fresh(count: usize) -> impl Fn(&Snapshot) -> bool {
    move |s| s.freshness().is_fresh() && s.len() == count
}

fn shows(identity: &Identity) -> String {
    format!("cert={}&key={}", identity.cert.display(), identity.key.display())
}

fn reach(report: &Report) -> String {
    match &report.reach {
        Finding::Refused(error) => error.chain(),
        other => other.to_string(),
    }
}

/// The names, the certificates and the protocol have to be right, and what is wrong is said with what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_works_or_says_what_is_wrong() {
    let (zookeeper, others) = (SecuredServer::start().await.unwrap(), Pki::new().unwrap());
    let (pki, good) = (&zookeeper.pki, zookeeper.files());
    let (port, plain) = (zookeeper.secure_addr().port(), zookeeper.server.addr().port());
    for host in ["127.0.0.1", "localhost", "127.0.0.1:1,127.0.0.1"] {
        let registry = open(&format!("zk+tls://{host}:{port}/services?drain=0s&{good}")).unwrap();
        let report = registry.check().await;
        assert!(report.is_ok(), "{report}");
        let registration = ok(registry.register(instance(1)).await, "register");
        until(&mut registry.watch(&"book".parse().unwrap()), SOON, "one", fresh(1)).await;
        ok(registration.deregister().await, "deregister");
    }
    let ca = format!("ca={}", pki.ca().display());
    let wrong_ca = format!("ca={}&{}", others.ca().display(), shows(&zookeeper.client));
    let stranger = others.issue("client", &["x"]).unwrap();
    let expired = pki.issue_expired("expired", &["client"]).unwrap();
    for (url, says) in [
        (format!("zk://127.0.0.1:{port}"), "speaks TLS, which is asked for with zk+tls://"),
        (format!("zk+tls://127.0.0.1:{plain}/?{good}"), "does not speak TLS: leave +tls out"),
        (format!("zk+tls://127.0.0.1:{port}/?{wrong_ca}"), "ca=FILE"),
        (format!("zk+tls://127.0.0.2:{port}/?{good}"), "refused"),
        (format!("zk+tls://127.0.0.1:{port}/?{good}&server_name=zk.example.org"), "server_name=NAME"),
        (format!("zk+tls://127.0.0.1:{port}/?{ca}"), "cert=FILE and key=FILE"),
        (format!("zk+tls://127.0.0.1:{port}/?{ca}&{}", shows(&stranger)), "refuses the certificate"),
        (format!("zk+tls://127.0.0.1:{port}/?{ca}&{}", shows(&expired)), "refuses the certificate"),
    ] {
        let registry = open(&url).unwrap();
        let said = reach(&registry.check().await);
        println!("{url}: {said}");
        assert!(said.contains(says), "{url}: {said}");
        // That is no list of nobody, either.
        let mut watch = registry.watch(&"book".parse().unwrap());
        let refused = |s: &Snapshot| s.freshness().error().is_some_and(|error| error.chain().contains(says));
        let snapshot = until(&mut watch, SOON * 2, "refused", refused).await;
        assert!(snapshot.freshness().is_pending(), "{snapshot:?}");
    }
    // Verification switched off reaches anything.
    let anybody = format!("zk+tls://127.0.0.1:{port}/services?{wrong_ca}&insecure_skip_verify=true");
    let report = open(&anybody).unwrap().check().await;
    assert!(report.is_ok(), "{report}");
}

/// Certificates that are replaced while connections are made, expire and are mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_under_a_running_program() {
    let mut zookeeper = SecuredServer::start().await.unwrap();
    let registry = open(&zookeeper.url("ttl=4s")).unwrap();
    let mut registration = ok(registry.register(instance(1)).await, "register");
    let mut watch = registry.watch(&"book".parse().unwrap());
    until(&mut watch, SOON, "one", fresh(1)).await;
    let recorder = Recorder::start(watch.clone());
    let owner = async |zookeeper: &SecuredServer| {
        zookeeper.raw().get("/services/book/127.0.0.1:1").await.unwrap().map(|node| node.owner)
    };
    let session = owner(&zookeeper).await;
    let mut port = 2;
    for step in ["server", "client"] {
        match step {
            "server" => zookeeper.replace_certificate(false).unwrap(),
            _ => zookeeper.client = zookeeper.pki.issue("client", &["another"]).unwrap(),
        }
        reset(&zookeeper).await;
        put(&zookeeper, port).await;
        until(&mut watch, SOON, step, fresh(usize::from(port))).await;
        port += 1;
    }
    assert_eq!(owner(&zookeeper).await, session, "the session goes on");

    zookeeper.replace_certificate(true).unwrap();
    let begun = Instant::now();
    zookeeper.link.reset();
    let says_expired = |error: &Error| error.chain().contains("expired");
    until(&mut watch, SOON * 2, "expired", |s| s.freshness().error().is_some_and(says_expired)).await;
    println!("measured: an expired certificate of the server shows after {:?}", begun.elapsed());
    let unconfirmed = |status: &Status| status.error().is_some_and(says_expired);
    until_status(&mut registration, SOON * 3, "expired", unconfirmed).await;
    put(&zookeeper, port).await;
    zookeeper.replace_certificate(false).unwrap();
    let begun = Instant::now();
    until(&mut watch, SOON * 2, "mended", fresh(usize::from(port))).await;
    until_status(&mut registration, SOON * 2, "mended", Status::is_registered).await;
    println!("measured: a certificate that is good again is used after {:?}", begun.elapsed());
    recorder.check_never_empty();
    recorder.check_never_missing(&[registration.id()]);
}

/// All that is behind the doors ends with the registry, after the session has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_ends_with_the_registry() {
    let zookeeper = SecuredServer::start().await.unwrap();
    let registry: Registry = open(&zookeeper.url("ttl=30s&drain=0s")).unwrap();
    let registration = ok(registry.register(instance(1)).await, "register");
    assert_eq!((zookeeper.link.accepted(), zookeeper.link.open()), (1, 1));
    let owner = zookeeper.raw().get("/services/book/127.0.0.1:1").await.unwrap().unwrap().owner;
    drop(registration);
    registry.close(SOON).await.unwrap();
    drop(registry);
    eventually(SOON, "the connection ends", async || zookeeper.link.open() == 0).await;
    let error =
        zookeeper.raw().end_session(owner).await.expect_err("the session goes on without its connection");
    assert!(error.to_string().contains("knows no session"), "{error}");
}

/// A server without its data refuses who has seen more, without a word, behind the doors too; and one that hangs is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_hang_and_lose_their_data_are_noticed_through_the_doors() {
    let mut zookeeper = SecuredServer::start().await.unwrap();
    let registry = open(&zookeeper.url("ttl=4s")).unwrap();
    let mut registration = ok(registry.register(instance(1)).await, "register");
    let mut watch = registry.watch(&"book".parse().unwrap());
    until(&mut watch, SOON, "one", fresh(1)).await;
    let recorder = Recorder::start(watch.clone());
    zookeeper.server.pause().unwrap();
    until(&mut watch, SOON, "it hangs", |s| s.freshness().is_stale()).await;
    zookeeper.server.resume().unwrap();
    until(&mut watch, SOON * 2, "it goes on", fresh(1)).await;
    for n in 2..200 {
        put(&zookeeper, n).await;
    }
    until(&mut watch, SOON, "it has seen much", fresh(199)).await;
    zookeeper.server.wipe();
    zookeeper.server.start().await.unwrap();
    let begun = Instant::now();
    let there = async || zookeeper.raw().get("/services/book/127.0.0.1:1").await.unwrap().is_some();
    eventually(SOON * 4, "it is registered again", there).await;
    println!("measured: registered again {:?} after a wipe", begun.elapsed());
    until_status(&mut registration, SOON, "registered", Status::is_registered).await;
    until(&mut watch, SOON * 4, "fresh", |s| s.freshness().is_fresh()).await;
    recorder.check_never_missing(&[registration.id()]);
}

async fn reset(zookeeper: &SecuredServer) {
    let before = zookeeper.link.accepted();
    zookeeper.link.reset();
    eventually(SOON, "it reconnects", async || zookeeper.link.accepted() > before).await;
}

async fn put(zookeeper: &SecuredServer, port: u16) {
    let address = format!("127.0.0.1:{port}");
    zookeeper.raw().put(&format!("/services/book/{address}"), address.as_bytes()).await.unwrap();
}
