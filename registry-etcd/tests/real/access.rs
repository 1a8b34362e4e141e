//! TLS, users and their rights.

use callsign_core::{Error, Finding, RegistryUrl, Status};
use callsign_testkit::etcd::{Etcd, Gateway};
use callsign_testkit::pki::{Identity, Pki};
use callsign_testkit::proxy::Proxy;
use callsign_testkit::record::Recorder;
use callsign_testkit::wait::{until, until_status};
use tokio::time::{Instant, sleep};

use crate::{book, fresh, instance, measured, open, secs};

/// The query of a URL that shows a certificate.
fn files(pki: &Pki, client: &Identity) -> String {
    format!("ca={}&cert={}&key={}", pki.ca().display(), client.cert.display(), client.key.display())
}

fn reach(report: &callsign_core::Report) -> String {
    match &report.reach {
        Finding::Refused(error) => error.chain(),
        other => other.to_string(),
    }
}

/// The names, the certificates and the protocol have to be right, and what is wrong is said with what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_works_or_says_what_is_wrong() {
    let (pki, others) = (Pki::new().unwrap(), Pki::new().unwrap());
    let mut etcd = Etcd::secured(&pki, &[]).unwrap();
    etcd.start().await.unwrap();
    let (port, plain) = (etcd.addr().port(), Etcd::raw(&etcd).addr().port());
    let (client, stranger) =
        (pki.issue("client", &["client"]).unwrap(), others.issue("client", &["x"]).unwrap());
    let expired = pki.issue_expired("expired", &["client"]).unwrap();
    let good = files(&pki, &client);
    for host in ["127.0.0.1", "localhost"] {
        let registry = open(&format!("etcd+tls://{host}:{port}/services?{good}"));
        let report = registry.check().await;
        assert!(report.is_ok(), "{report}");
        let registration = registry.register(instance(1)).await.unwrap();
        until(&mut registry.watch(&book()), secs(5), "one", fresh(1)).await;
        registration.deregister().await.unwrap();
    }
    let ca = format!("ca={}", pki.ca().display());
    let wrong_ca =
        format!("ca={}&cert={}&key={}", others.ca().display(), client.cert.display(), client.key.display());
    for (url, says) in [
        (format!("etcd://127.0.0.1:{port}"), "TLS, which is asked for with +tls"),
        (format!("etcd+tls://127.0.0.1:{plain}/?{good}"), "does not speak TLS: leave +tls out"),
        (format!("etcd+tls://127.0.0.1:{port}/?{wrong_ca}"), "ca=FILE"),
        (format!("etcd+tls://127.0.0.2:{port}/?{good}"), "refused"),
        (format!("etcd+tls://127.0.0.1:{port}/?{good}&server_name=etcd.example.org"), "server_name=NAME"),
        (format!("etcd+tls://127.0.0.1:{port}/?{ca}"), "cert=FILE and key=FILE"),
        (format!("etcd+tls://127.0.0.1:{port}/?{ca}&{}", rest(&stranger)), "refuses the certificate"),
        (format!("etcd+tls://127.0.0.1:{port}/?{ca}&{}", rest(&expired)), "refuses the certificate"),
    ] {
        let report = open(&url).check().await;
        let said = reach(&report);
        println!("{url}: {said}");
        assert!(report.reach.is_refused() && said.contains(says), "{url}: {said}");
    }
    // Verification switched off reaches anything.
    let report =
        open(&format!("etcd+tls://127.0.0.1:{port}/?{wrong_ca}&insecure_skip_verify=true")).check().await;
    assert!(report.is_ok(), "{report}");
    let named = open(&format!("etcd+tls://127.0.0.1:{port}/?{good}&server_name=localhost")).check().await;
    assert!(named.is_ok(), "{named}");
}

/// A certificate of the server's that is replaced while connections are made, breaks and is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_under_a_running_program() {
    let mut pki = Pki::new().unwrap();
    let mut etcd = Etcd::secured(&pki, &[]).unwrap();
    etcd.start().await.unwrap();
    let raw = Etcd::raw(&etcd);
    let link = Proxy::start(etcd.addr()).await.unwrap();
    let client = pki.issue("client", &["client"]).unwrap();
    let registry = open(&format!("etcd+tls://{}/services?{}", link.addr(), files(&pki, &client)));
    let mut registration = registry.register(instance(1)).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "one", fresh(1)).await;
    let recorder = Recorder::start(watch.clone());

    // By a successor that is as good, and then by another authority's, which was announced before.
    let mut port = 2;
    for step in ["server", "client", "authority"] {
        match step {
            "server" => drop(pki.issue("server", &["127.0.0.1"]).unwrap()),
            "client" => drop(pki.issue("client", &["another"]).unwrap()),
            _ => {
                pki.replace_authority(true).unwrap();
                pki.issue("server", &["127.0.0.1"]).unwrap();
            }
        }
        // A watch is resumed at once if it was steady for a second.
        sleep(secs(2)).await;
        link.reset();
        put(&raw, port).await;
        until(&mut watch, secs(5), step, fresh(usize::from(port))).await;
        port += 1;
    }
    let stale = recorder.history().into_iter().find(|(_, snapshot)| !snapshot.freshness().is_fresh());
    assert!(stale.is_none(), "{stale:?}");

    pki.issue_expired("server", &["127.0.0.1"]).unwrap();
    let begun = Instant::now();
    link.reset();
    let says_expired = |error: &Error| error.chain().contains("expired");
    until(&mut watch, secs(10), "expired", |s| s.freshness().error().is_some_and(says_expired)).await;
    measured("an expired certificate of the server shows", begun.elapsed());
    let unconfirmed = |status: &Status| status.error().is_some_and(says_expired);
    until_status(&mut registration, secs(10), "expired", unconfirmed).await;
    put(&raw, port).await;
    pki.issue("server", &["127.0.0.1"]).unwrap();
    let begun = Instant::now();
    until(&mut watch, secs(6), "mended", fresh(usize::from(port))).await;
    until_status(&mut registration, secs(6), "mended", Status::is_registered).await;
    measured("a certificate that is good again is used", begun.elapsed());
    recorder.check_never_empty();
    recorder.check_never_missing(&[registration.id()]);
}

/// Files that are of no use for a while do not end what worked before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_break_leave_what_was_used_last() {
    let pki = Pki::new().unwrap();
    let mut etcd = Etcd::secured(&pki, &[]).unwrap();
    etcd.start().await.unwrap();
    let link = Proxy::start(etcd.addr()).await.unwrap();
    let client = pki.issue("client", &["client"]).unwrap();
    let registry = open(&format!("etcd+tls://{}/services?{}", link.addr(), files(&pki, &client)));
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "listed", fresh(0)).await;
    std::fs::write(&client.key, "").unwrap();
    std::fs::remove_file(pki.ca()).unwrap();
    link.reset();
    put(&Etcd::raw(&etcd), 1).await;
    until(&mut watch, secs(5), "one", fresh(1)).await;
    // But nothing begins with them.
    let url = format!("etcd+tls://{}/services?{}", link.addr(), files(&pki, &client));
    let error = callsign_etcd::open(&RegistryUrl::parse(&url).unwrap()).unwrap_err();
    assert!(error.to_string().contains("ca.pem cannot be read"), "{error}");
}

async fn put(raw: &Gateway, port: u16) {
    let address = format!("127.0.0.1:{port}");
    raw.put(&format!("services/book/{address}"), address.as_bytes(), 0).await.unwrap();
}

fn rest(identity: &Identity) -> String {
    format!("cert={}&key={}", identity.cert.display(), identity.key.display())
}
