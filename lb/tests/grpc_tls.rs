//! TLS to instances, with certificates of one side or of both.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper of tests")]

#[path = "support/secure.rs"]
mod secure;
mod support;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use callsign_core::{Instance, InstanceWatch, Pem, Registration, Registry, Tls};
use callsign_lb::grpc::{Channel, Http2};
use callsign_testkit::pki::{Identity, Pki};
use support::echo::{Echo, echo};
use support::{eventually, memory, service, within};
use tokio::net::TcpListener;
use tonic::Code;

/// A server that speaks TLS, registered.
struct Scene {
    server: Echo,
    port: u16,
    registry: Registry,
    _registration: Registration,
}

impl Scene {
    async fn new(identity: &Identity, clients: Option<&Path>, protocols: &[&str], grpcs: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Echo::over(secure::accept(listener, identity, clients, protocols), None);
        let registry = memory();
        let instance = Instance::new("book", format!("127.0.0.1:{port}")).unwrap();
        let instance = instance.with_metadata("tls-name", "one.example.org").unwrap();
        let instance = if grpcs { instance.with_protocol("grpcs").unwrap() } else { instance };
        let registration = registry.register(instance).await.unwrap();
        Self { server, port, registry, _registration: registration }
    }

    fn watch(&self) -> InstanceWatch {
        self.registry.watch(&service())
    }

    fn channel(&self, tls: Tls) -> Channel {
        Channel::builder(self.watch()).http2(Http2::new().tls_config(tls)).build()
    }

    /// A call that must not get through, and why it does not.
    async fn refused(&self, channel: Channel) -> String {
        let refused =
            channel.endpoints().wait_for(|set| set.error().is_some_and(|error| !error.is_not_yet()));
        within(Duration::from_secs(5), "refused", refused).await;
        let status = echo(channel, "secret").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert_eq!(self.server.seen.compressed.load(Ordering::SeqCst), 0);
        status.message().to_owned()
    }
}

fn trust(pki: &Pki) -> Tls {
    Tls::default().ca(Pem::file(pki.ca()))
}

#[tokio::test]
async fn of_one_side() {
    let pki = Pki::new().unwrap();
    let scene = Scene::new(&pki.issue("server", &["127.0.0.1"]).unwrap(), None, &["h2"], true).await;
    let answer = echo(scene.channel(trust(&pki)), "secret").await.unwrap();
    assert_eq!(answer.metadata().get("x-scheme").unwrap(), "https");
    assert_eq!(
        answer.metadata().get("x-authority").unwrap().to_str().unwrap(),
        format!("127.0.0.1:{}", scene.port)
    );
    assert_eq!(answer.into_inner(), "secret");
    // As bytes.
    let ca = Pem::bytes(std::fs::read(pki.ca()).unwrap());
    echo(scene.channel(Tls::default().ca(ca)), "").await.unwrap();
    let others = Pki::new().unwrap();
    let why = scene.refused(scene.channel(trust(&others))).await;
    assert!(why.contains("Tls::ca"), "{why}");
    // Who is not asked for TLS by its registration is asked by the channel.
    let plain = Scene::new(&pki.issue("server", &["127.0.0.1"]).unwrap(), None, &["h2"], false).await;
    let http2 = || Http2::new().tls_config(trust(&pki));
    let clear = Channel::builder(plain.watch()).tls(false).http2(http2()).build();
    let why = plain.refused(clear).await;
    assert!(why.contains("TLS") && why.contains("grpcs"), "{why}");
    echo(Channel::builder(plain.watch()).tls(true).http2(http2()).build(), "").await.unwrap();
    // Whoever says whom to trust does not want it in the clear.
    echo(Channel::builder(plain.watch()).http2(http2()).build(), "").await.unwrap();
}

#[tokio::test]
async fn of_both_sides() {
    let pki = Pki::new().unwrap();
    let identity = pki.issue("server", &["127.0.0.1"]).unwrap();
    let scene = Scene::new(&identity, Some(&pki.ca()), &["h2"], true).await;
    let own = pki.issue("client", &["client"]).unwrap();
    let tls = trust(&pki).identity(Pem::file(&own.cert), Pem::file(&own.key));
    assert_eq!(echo(scene.channel(tls), "secret").await.unwrap().into_inner(), "secret");
    let why = scene.refused(scene.channel(trust(&pki))).await;
    assert!(why.contains("wants to see a certificate"), "{why}");
    let others = Pki::new().unwrap();
    let strange = others.issue("client", &["client"]).unwrap();
    let tls = trust(&pki).identity(Pem::file(&strange.cert), Pem::file(&strange.key));
    let why = scene.refused(scene.channel(tls)).await;
    assert!(why.contains("refuses the certificate of Tls::identity"), "{why}");
}

/// A name that the certificate is not for is refused, and one can be expected for all instances or for each.
#[tokio::test]
async fn of_another_name() {
    let pki = Pki::new().unwrap();
    let identity = pki.issue("server", &["one.example.org"]).unwrap();
    let scene = Scene::new(&identity, None, &["h2"], true).await;
    let why = scene.refused(scene.channel(trust(&pki))).await;
    assert!(why.contains("Tls::server_name"), "{why}");
    echo(scene.channel(trust(&pki).server_name("one.example.org")), "").await.unwrap();
    scene.refused(scene.channel(trust(&pki).server_name("two.example.org"))).await;
    let of = |instance: &Instance| instance.metadata().get("tls-name").map(ToString::to_string);
    // That of the instance goes before that of all.
    let http2 = Http2::new().tls_config(trust(&pki).server_name("two.example.org")).server_name(of);
    echo(Channel::builder(scene.watch()).http2(http2).build(), "").await.unwrap();
}

/// Who does not agree on HTTP/2 is not spoken to.
#[tokio::test]
async fn without_alpn() {
    let pki = Pki::new().unwrap();
    let identity = pki.issue("server", &["127.0.0.1"]).unwrap();
    let scene = Scene::new(&identity, None, &[], true).await;
    let why = scene.refused(scene.channel(trust(&pki))).await;
    assert!(why.contains("ALPN"), "{why}");
}

/// Certificates are read anew for each connection.
#[tokio::test]
async fn certificates_change_while_it_runs() {
    let pki = Pki::new().unwrap();
    let identity = pki.issue("server", &["127.0.0.1"]).unwrap();
    let scene = Scene::new(&identity, Some(&pki.ca()), &["h2"], true).await;
    let expired = pki.issue_expired("client", &["client"]).unwrap();
    let tls = trust(&pki).identity(Pem::file(&expired.cert), Pem::file(&expired.key));
    let channel = scene.channel(tls);
    scene.refused(channel.clone()).await;
    // In the same files.
    pki.issue("client", &["client"]).unwrap();
    eventually("connected", || channel.endpoints().ready_set().len() == 1).await;
    echo(channel, "").await.unwrap();
}
