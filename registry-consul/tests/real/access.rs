//! TLS, and what is said where it is missing or wrong.

use callsign_core::Finding;
use callsign_testkit::consul::Consul;
use callsign_testkit::pki::{Identity, Pki};
use callsign_testkit::wait::until;

use crate::{book, fresh, instance, open, secs};

fn shows(identity: &Identity) -> String {
    format!("cert={}&key={}", identity.cert.display(), identity.key.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_works_or_says_what_is_wrong() {
    let (pki, others) = (Pki::new().unwrap(), Pki::new().unwrap());
    let mut consul = Consul::secured(&pki).unwrap();
    consul.start().await.unwrap();
    let port = consul.addr().port();
    let plain = {
        let mut plain = Consul::server().unwrap();
        plain.start().await.unwrap();
        plain
    };
    let client = pki.issue("client", &["client"]).unwrap();
    let stranger = others.issue("client", &["x"]).unwrap();
    let ca = format!("ca={}", pki.ca().display());
    let good = format!("{ca}&{}", shows(&client));
    let registry = open(&format!("consul+tls://127.0.0.1:{port}/?{good}"));
    let report = registry.check().await;
    assert!(report.is_ok(), "{report}");
    let registration = registry.register(instance(1)).await.unwrap();
    until(&mut registry.watch(&book()), secs(5), "one", fresh(1)).await;
    registration.deregister().await.unwrap();
    let wrong_ca = format!("ca={}&{}", others.ca().display(), shows(&client));
    for (url, says) in [
        (format!("consul://127.0.0.1:{port}"), "consul+tls://"),
        (format!("consul+tls://{}/?{good}", plain.addr()), "does not speak TLS: leave +tls out"),
        (format!("consul+tls://127.0.0.1:{port}/?{wrong_ca}"), "ca=FILE"),
        (format!("consul+tls://127.0.0.1:{port}/?{good}&server_name=consul.example.org"), "server_name=NAME"),
        (format!("consul+tls://127.0.0.1:{port}/?{ca}"), "cert=FILE and key=FILE"),
        (format!("consul+tls://127.0.0.1:{port}/?{ca}&{}", shows(&stranger)), "refuses the certificate"),
    ] {
        let report = open(&url).check().await;
        let said = match &report.reach {
            Finding::Refused(error) => error.chain(),
            other => other.to_string(),
        };
        println!("{url}: {said}");
        assert!(report.reach.is_refused() && said.contains(says), "{url}: {said}");
    }
}
