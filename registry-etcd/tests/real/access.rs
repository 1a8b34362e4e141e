//! TLS, users and their rights.

use callsign_core::Outcome;
use callsign_testkit::etcd::Etcd;
use callsign_testkit::pki::{Identity, Pki};
use callsign_testkit::wait::until;

use crate::{book, fresh, instance, open, secs};

/// The query of a URL that shows a certificate.
fn files(pki: &Pki, client: &Identity) -> String {
    format!("ca={}&cert={}&key={}", pki.ca().display(), client.cert.display(), client.key.display())
}

fn reach(report: &callsign_core::Report) -> String {
    match &report.reach {
        Outcome::Refused(error) => error.chain(),
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

fn rest(identity: &Identity) -> String {
    format!("cert={}&key={}", identity.cert.display(), identity.key.display())
}
