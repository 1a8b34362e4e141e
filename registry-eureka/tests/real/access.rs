//! TLS and users: what is refused is a named state, and ends when it is mended. No secret is shown anywhere.

use std::time::Duration;

use callsign_core::{Credentials, ErrorKind, Result, Secret, Snapshot};
use callsign_eureka::Eureka as Registries;
use callsign_testkit::log::Log;
use callsign_testkit::wait::until;

use crate::{book, fresh, instance, open, secs, start};

const RIGHT: &str = "c4n4ry-r1ght";
const WRONG: &str = "c4n4ry-wr0ng";

fn says(kind: ErrorKind) -> impl Fn(&Snapshot) -> bool {
    move |s| s.freshness().error().is_some_and(|error| error.kind() == kind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_may_not_is_named_and_ends() {
    let log = Log::of_process();
    let folder = tempfile::tempdir().unwrap();
    let (users, password) = (folder.path().join("users"), folder.path().join("password"));
    let permit =
        |password: &str, may: &str| std::fs::write(&users, format!("book {password} {may}\n")).unwrap();
    permit(RIGHT, "READ WRITE");
    std::fs::write(&password, RIGHT).unwrap();
    let (server, _, _) = start(&[&format!("testbed.users={}", users.display())]).await;
    let addr = server.addr();
    let good = format!("eureka://book@{addr}/eureka?poll=100ms&ttl=4s&password_file={}", password.display());
    let registry = open(&good);
    let report = registry.check().await;
    assert!(report.is_ok(), "{report}");
    let registration = registry.register(instance(1)).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "one", fresh(1)).await;
    let mut shown = format!("{report} {registry:?}");

    let wrong = open(&format!("eureka://book:{WRONG}@{addr}/eureka"));
    let nobody = open(&format!("eureka://{addr}/eureka"));
    for registry in [&wrong, &nobody] {
        let error = registry.register(instance(2)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{}", error.chain());
        shown.push_str(&format!("{error:?} {} {registry:?} {}", error.chain(), registry.check().await));
    }
    let builder = Registries::builder("/eureka").host(addr.to_string().as_str()).unwrap();
    shown.push_str(&format!(
        "{:?}",
        builder.credentials(Credentials::new("book", Secret::new(RIGHT)).unwrap())
    ));

    permit(RIGHT, "WRITE");
    until(&mut watch, secs(5), "may not read", says(ErrorKind::PermissionDenied)).await;
    assert!(registration.status().is_registered() || watch.snapshot().len() == 1);
    permit(WRONG, "READ WRITE");
    until(&mut watch, secs(5), "unknown", says(ErrorKind::Unauthenticated)).await;
    assert_eq!(watch.snapshot().len(), 1, "nothing is emptied");
    std::fs::write(&password, WRONG).unwrap();
    until(&mut watch, secs(10), "mended", fresh(1)).await;
    shown.push_str(&format!("{:?} {:?}", watch.snapshot(), registration.status()));
    let log = log.said();
    for (what, said) in [("log", &log), ("errors and Debug", &shown)] {
        let line = said.lines().find(|line| line.contains("c4n4ry"));
        assert!(line.is_none(), "the {what} shows a secret: {line:?}");
    }
    assert!(log.contains("callsign"), "nothing was logged");
}

/// Whoever knows user and password does not answer: that is an error after a request's time, as a server that hangs is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_do_not_come_are_an_error() {
    let (server, _, _) = start(&[]).await;
    let never = || async { std::future::pending::<Result<Credentials>>().await };
    let builder = Registries::builder("/eureka").host(server.addr().to_string().as_str()).unwrap();
    let registry = builder.credentials(never).poll(Duration::from_millis(100)).build().unwrap();
    let mut watch = registry.watch(&book());
    let failed = until(&mut watch, secs(7), "no user", |s| s.freshness().error().is_some()).await;
    let error = failed.freshness().error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.chain());
    assert!(error.chain().contains("Eureka's user"), "{}", error.chain());
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_works_or_says_what_is_wrong() {
    use callsign_testkit::eureka::SecuredEureka;
    use callsign_testkit::pki::Pki;

    let secured = SecuredEureka::start().await.unwrap();
    let others = Pki::new().unwrap();
    let registry = open(&secured.url("poll=100ms"));
    let report = registry.check().await;
    assert!(report.is_ok(), "{report}");
    let registration = registry.register(instance(1)).await.unwrap();
    until(&mut registry.watch(&book()), secs(5), "one", fresh(1)).await;
    registration.deregister_within(secs(1)).await.unwrap();
    let (plain, _, _) = start(&[]).await;
    let (addr, ca) = (secured.link.addr(), secured.pki.ca());
    for (url, says) in [
        (format!("eureka://{addr}/eureka"), "eureka+tls://"),
        (
            format!("eureka+tls://{}/eureka?ca={}", plain.addr(), ca.display()),
            "does not speak TLS: leave +tls out",
        ),
        (format!("eureka+tls://{addr}/eureka?ca={}", others.ca().display()), "ca=FILE"),
        (format!("eureka+tls://{addr}/eureka?ca={}", ca.display()), "cert=FILE and key=FILE"),
    ] {
        let report = open(&url).check().await;
        let callsign_core::Finding::Refused(error) = &report.reach else { panic!("{url}: {report}") };
        println!("{url}: {}", error.chain());
        assert!(error.chain().contains(says), "{url}: {}", error.chain());
    }
}
