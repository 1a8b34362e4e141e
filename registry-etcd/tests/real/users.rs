//! Users: passwords that change, tokens that expire, rights that are given and taken away.

use std::path::Path;

use callsign_core::{
    Credentials, ErrorKind, Finding, Freshness, InstanceWatch, Registration, Registry, Secret, Snapshot,
    Status,
};
use callsign_etcd::Etcd as Backend;
use callsign_testkit::etcd::{Etcd, Gateway, Permission};
use callsign_testkit::record::Recorder;
use callsign_testkit::server::Server;
use callsign_testkit::wait::{eventually, until, until_status};
use tokio::time::{Instant, sleep};

use crate::{book, fresh, ids, instance, measured, open, open_at, secs, start};

/// How often clients ask here whether they may still read, so that no test waits for half a minute.
const VERIFY: &str = "verify=2s";
/// What then has to show.
const SHOWN: u64 = 6;

/// An etcd where `book` may read and write below both spellings of the prefix, with a password.
struct Secured {
    etcd: Server<Etcd>,
    root: Gateway,
}

const BOTH: [(&str, Permission); 2] =
    [("services/", Permission::ReadWrite), ("/services/", Permission::ReadWrite)];

impl Secured {
    async fn start(may: &[(&str, Permission)], more: &[&str]) -> Self {
        let (etcd, raw) = start(more).await;
        let root = Self::prepare(&raw, may).await;
        Self { etcd, root }
    }

    /// Makes the user, and switches authentication on.
    async fn prepare(raw: &Gateway, may: &[(&str, Permission)]) -> Gateway {
        raw.add_user("book", "right").await.unwrap();
        raw.add_role("role", may).await.unwrap();
        raw.grant_role("book", "role").await.unwrap();
        raw.enable_auth("root").await.unwrap()
    }

    fn open(&self, user: &str, rest: &str) -> Registry {
        open(&format!("etcd://{user}@{}/services?{VERIFY}{rest}", self.root.addr()))
    }

    /// With the password in a file.
    fn open_by_file(&self, file: &Path) -> Registry {
        self.open("book", &format!("&password_file={}", file.display()))
    }
}

async fn both(registry: &Registry) -> (Registration, InstanceWatch) {
    let registration = registry.register(instance(1)).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "listed", fresh(1)).await;
    (registration, watch)
}

fn stale_by(kind: ErrorKind) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| matches!(snapshot.freshness(), Freshness::Stale { error, .. } if error.kind() == kind)
}

/// A watch that was never anything but fresh, and a registration that was never anything but registered.
fn undisturbed(recorder: &Recorder, registration: &mut Registration) {
    let history = recorder.history();
    assert!(history.iter().all(|(_, snapshot)| snapshot.freshness().is_fresh()), "{history:?}");
    assert!(registration.status().is_registered(), "{:?}", registration.status());
}

async fn shows_changes(raw: &Gateway, watch: &mut InstanceWatch, address: &str) {
    raw.put(&format!("services/book/{address}"), address.as_bytes(), 0).await.unwrap();
    let has = |snapshot: &Snapshot| ids(snapshot).iter().any(|id| id == address);
    until(watch, secs(5), "the change", has).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_expire_are_replaced_unnoticed() {
    let secured = Secured::start(&BOTH, &["--auth-token-ttl", "3"]).await;
    let (mut registration, mut watch) = both(&secured.open("book:right", "&ttl=5s")).await;
    let recorder = Recorder::start(watch.clone());
    // Longer than the lease lives, and several times longer than a token.
    sleep(secs(14)).await;
    undisturbed(&recorder, &mut registration);
    let root = secured.root.login("root", "root").await.unwrap();
    shows_changes(&root, &mut watch, "127.0.0.1:2").await;
    undisturbed(&recorder, &mut registration);
    registration.deregister().await.unwrap();
    assert_eq!(root.login("root", "root").await.unwrap().count("services/book/").await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_in_the_file_first_changes_unnoticed() {
    let secured = Secured::start(&BOTH, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "right\n").unwrap();
    let (mut registration, mut watch) = both(&secured.open_by_file(&file)).await;
    let recorder = Recorder::start(watch.clone());
    std::fs::write(&file, "new\n").unwrap();
    secured.root.change_password("book", "new").await.unwrap();
    sleep(secs(SHOWN)).await;
    shows_changes(&secured.root, &mut watch, "127.0.0.1:2").await;
    undisturbed(&recorder, &mut registration);
    let update = instance(1).with_weight(7);
    registration.update(update).await.unwrap();
    until(&mut watch, secs(5), "the update", |snapshot| snapshot.iter().any(|i| i.weight() == 7)).await;
    undisturbed(&recorder, &mut registration);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_wrong_shows_and_is_mended_without_a_restart() {
    let secured = Secured::start(&BOTH, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "right\n").unwrap();
    let (mut registration, mut watch) = both(&secured.open_by_file(&file)).await;
    let recorder = Recorder::start(watch.clone());

    let begun = Instant::now();
    secured.root.change_password("book", "new").await.unwrap();
    let refused = stale_by(ErrorKind::Unauthenticated);
    let shown = until(&mut watch, secs(SHOWN), "refused", &refused).await;
    measured("a password that changed shows", begun.elapsed());
    let said = shown.freshness().error().unwrap().chain();
    assert!(said.contains("book") && said.contains("password"), "{said}");
    let unconfirmed = |status: &Status| matches!(status, Status::Unconfirmed { error, .. } if error.kind() == ErrorKind::Unauthenticated);
    until_status(&mut registration, secs(SHOWN), "unconfirmed", unconfirmed).await;

    // Whoever comes new is told at once, and not kept waiting.
    let other = secured.open_by_file(&file);
    let error = other.register(instance(3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{}", error.chain());
    let mut fresh_watch = other.watch(&book());
    let pending = |snapshot: &Snapshot| {
        snapshot.freshness().error().is_some_and(|e| e.kind() == ErrorKind::Unauthenticated)
    };
    let shown = until(&mut fresh_watch, secs(2), "refused", pending).await;
    assert!(shown.freshness().is_pending(), "{shown:?}");
    let report = other.check().await;
    assert!(
        matches!(&report.read, Finding::Refused(e) if e.kind() == ErrorKind::Unauthenticated),
        "{report}"
    );

    std::fs::write(&file, "new\n").unwrap();
    let begun = Instant::now();
    until(&mut watch, secs(10), "fresh again", fresh(1)).await;
    until(&mut fresh_watch, secs(10), "fresh at last", fresh(1)).await;
    until_status(&mut registration, secs(10), "registered again", Status::is_registered).await;
    measured("a password that is right again is used", begun.elapsed());
    shows_changes(&secured.root, &mut watch, "127.0.0.1:2").await;
    recorder.check_never_empty();
    recorder.check_never_missing(&[registration.id()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_taken_away_show_and_come_back() {
    let secured = Secured::start(&BOTH, &[]).await;
    let (mut registration, mut watch) = both(&secured.open("book:right", "")).await;
    let recorder = Recorder::start(watch.clone());
    let begun = Instant::now();
    secured.root.revoke_role("book", "role").await.unwrap();
    until(&mut watch, secs(SHOWN), "refused", stale_by(ErrorKind::PermissionDenied)).await;
    measured("a right that was taken away shows", begun.elapsed());
    let unconfirmed = |status: &Status| matches!(status, Status::Unconfirmed { error, .. } if error.kind() == ErrorKind::PermissionDenied);
    until_status(&mut registration, secs(SHOWN), "unconfirmed", unconfirmed).await;
    secured.root.grant_role("book", "role").await.unwrap();
    let begun = Instant::now();
    until(&mut watch, secs(10), "fresh again", fresh(1)).await;
    until_status(&mut registration, secs(10), "registered again", Status::is_registered).await;
    measured("a right that came back is used", begun.elapsed());
    shows_changes(&secured.root, &mut watch, "127.0.0.1:2").await;
    recorder.check_never_empty();
    recorder.check_never_missing(&[registration.id()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_is_told_what_is_refused() {
    let secured = Secured::start(&[("services/", Permission::Read)], &[]).await;
    let registry = secured.open("book:right", "");
    shows_changes(&secured.root, &mut registry.watch(&book()), "127.0.0.1:2").await;
    let report = registry.check().await;
    assert!(!report.reach.is_refused() && !report.read.is_refused(), "{report}");
    assert!(
        matches!(&report.write, Finding::Refused(e) if e.kind() == ErrorKind::PermissionDenied),
        "{report}"
    );
    for error in [
        registry.register(instance(1)).await.unwrap_err(),
        registry.remove(&book(), &"127.0.0.1:2".parse().unwrap()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
    }
    assert_eq!(secured.root.count("services/").await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_below_one_spelling_of_the_prefix_suffice() {
    let secured = Secured::start(&[("services/", Permission::ReadWrite)], &[]).await;
    let registry = secured.open("book:right", "");
    let report = registry.check().await;
    assert!(report.is_ok() && report.read.to_string().contains("/services/"), "{report}");
    let (registration, mut watch) = both(&registry).await;
    shows_changes(&secured.root, &mut watch, "127.0.0.1:2").await;
    assert_eq!(registry.services().await.unwrap(), [book()]);
    registry.remove(&book(), &"127.0.0.1:2".parse().unwrap()).await.unwrap();
    until(&mut watch, secs(40), "removed", |s| s.freshness().is_fresh() && ids(s) == ["127.0.0.1:1"]).await;
    registration.deregister().await.unwrap();
    // The other spelling alone is not enough for who writes to this one.
    let report = secured.open("book:right", "&format=gokit").check().await;
    assert!(report.read.is_refused() && report.write.is_refused(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_for_one_service_suffice_for_it() {
    let secured = Secured::start(&[("services/book/", Permission::ReadWrite)], &[]).await;
    let registry = secured.open("book:right", "");
    let (_registration, mut watch) = both(&registry).await;
    shows_changes(&secured.root, &mut watch, "127.0.0.1:2").await;
    let report = registry.check().await;
    assert!(
        matches!(&report.read, Finding::Refused(e) if e.kind() == ErrorKind::PermissionDenied),
        "{report}"
    );
    let error = registry.services().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}", error.chain());
    let mut other = registry.watch(&"other".parse().unwrap());
    let denied =
        |s: &Snapshot| s.freshness().error().is_some_and(|e| e.kind() == ErrorKind::PermissionDenied);
    until(&mut other, secs(5), "denied", denied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authentication_is_switched_on_and_off_under_running_programs() {
    let (_etcd, raw) = start(&[]).await;
    let url = format!("{}/services?{VERIFY}", raw.addr());
    let known = open(&format!("etcd://root:root@{url}"));
    let unknown = open_at(raw.addr(), &format!("/services?{VERIFY}"));
    // Credentials that nobody asks for do no harm.
    let (mut registration, mut watch) = both(&known).await;
    let mut watch_of_unknown = unknown.watch(&book());
    until(&mut watch_of_unknown, secs(5), "listed", fresh(1)).await;
    let (recorder, of_unknown) = (Recorder::start(watch.clone()), Recorder::start(watch_of_unknown.clone()));

    let root = raw.enable_auth("root").await.unwrap();
    until(&mut watch_of_unknown, secs(SHOWN), "refused", stale_by(ErrorKind::Unauthenticated)).await;
    shows_changes(&root, &mut watch, "127.0.0.1:2").await;
    root.disable_auth().await.unwrap();
    until(&mut watch_of_unknown, secs(10), "readable again", fresh(2)).await;
    sleep(secs(SHOWN)).await;
    shows_changes(&raw, &mut watch, "127.0.0.1:3").await;
    undisturbed(&recorder, &mut registration);
    of_unknown.check_never_empty();
    // And once more, with a token that is no longer good.
    let root = raw.enable_auth_again("root").await.unwrap();
    sleep(secs(SHOWN)).await;
    shows_changes(&root, &mut watch, "127.0.0.1:4").await;
    undisturbed(&recorder, &mut registration);
    eventually(secs(10), "refused again", async || watch_of_unknown.snapshot().freshness().is_stale()).await;
}

/// A token from before a wipe is not refused: etcd waits until its history is as long as that which gave it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wipe_that_loses_the_tokens_is_recovered_from() {
    let mut secured = Secured::start(&BOTH, &[]).await;
    for n in 0..500 {
        secured.root.put(&format!("elsewhere/{n}"), b"x", 0).await.unwrap();
    }
    let (mut registration, mut watch) = both(&secured.open("book:right", "")).await;
    let recorder = Recorder::start(watch.clone());
    secured.etcd.wipe();
    secured.etcd.start().await.unwrap();
    let raw = Gateway::new(secured.etcd.addr());
    let root = Secured::prepare(&raw, &BOTH).await;
    let begun = Instant::now();
    let count = async || root.count("services/book/").await.is_ok_and(|count| count == 1);
    eventually(secs(30), "registered again", count).await;
    measured("registered again after a wipe with users", begun.elapsed());
    until_status(&mut registration, secs(5), "registered", Status::is_registered).await;
    until(&mut watch, secs(30), "fresh again", fresh(1)).await;
    measured("fresh again after a wipe with users", begun.elapsed());
    recorder.check_never_missing(&[registration.id()]);
}

/// A password that cannot be read at the moment is no fault of what is registered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_cannot_be_read_for_a_while_loses_nothing() {
    let secured = Secured::start(&BOTH, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "right\n").unwrap();
    let (mut registration, mut watch) = both(&secured.open_by_file(&file)).await;
    let recorder = Recorder::start(watch.clone());
    std::fs::write(&file, "").unwrap();
    // Ends the tokens.
    secured.root.change_password("book", "right").await.unwrap();
    let told = |status: &Status| status.error().is_some_and(|error| error.chain().contains("is empty"));
    until_status(&mut registration, secs(10), "it is told", told).await;
    let mend = async {
        sleep(secs(2)).await;
        std::fs::write(&file, "right\n").unwrap();
    };
    let (done, ()) = tokio::join!(registration.update(instance(1).with_weight(7)), mend);
    done.unwrap();
    until(&mut watch, secs(10), "the update", |s| s.iter().any(|listed| listed.weight() == 7)).await;
    recorder.check_never_missing(&[registration.id()]);
}

/// Whoever knows the password may be slow, and it is not etcd that is blamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_provider_is_waited_for() {
    let secured = Secured::start(&BOTH, &[]).await;
    let provider = || async {
        sleep(secs(3)).await;
        Credentials::new("book", Secret::new("right"))
    };
    let registry = Backend::builder()
        .endpoint(secured.root.addr().to_string())
        .unwrap()
        .prefix("/services")
        .credentials(provider)
        .build()
        .unwrap();
    let registrations: Vec<_> = (1..=50).map(|port| registry.keep_registered(instance(port))).collect();
    let begun = Instant::now();
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(8), "all", fresh(50)).await;
    measured("50 registered with a provider that takes 3 s", begun.elapsed());
    drop(registrations);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn siblings_are_removed_by_who_may_write_one_spelling() {
    let secured = Secured::start(&[("/services/", Permission::ReadWrite)], &[]).await;
    let both = br#"{"id":"a","name":"book","version":"","metadata":null,"endpoints":["grpc://127.0.0.1:1","http://127.0.0.1:2"]}"#;
    secured.root.put("/services/book/a", both, 0).await.unwrap();
    let registry = secured.open("book:right", "&format=kratos&grace=0s");
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "both", |s| ids(s) == ["a@grpc", "a@http"]).await;
    let error = registry.remove(&book(), &"b".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain());
    registry.remove(&book(), &"a@grpc".parse().unwrap()).await.unwrap();
    until(&mut watch, secs(5), "none", fresh(0)).await;
}
