//! What is written, byte for byte, and what others write.

use std::time::Duration;

use callsign_core::{ErrorKind, Instance, InstanceId, Registry, ServiceName, State};
use callsign_testkit::fixture::{Fixture, Served, Tuning, with_query};
use callsign_testkit::wait::{eventually, ok, until};
use callsign_testkit::zookeeper::{Format, ZooKeeperFixture};
use tokio::time::{sleep, timeout};

use crate::{SOON, fixture, open};

fn book() -> ServiceName {
    "book".parse().unwrap()
}

fn at(fixture: &ZooKeeperFixture, path: &str, query: &str) -> Registry {
    let addr = fixture.link().unwrap().addr();
    open(&with_query(&format!("zk://{addr}{path}"), query)).unwrap()
}

async fn data(fixture: &ZooKeeperFixture, path: &str) -> String {
    let node = fixture.raw().get(path).await.unwrap().unwrap_or_else(|| panic!("there is no {path}"));
    String::from_utf8(node.data).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_format_is_written_at_its_place_and_all_are_read() {
    let fixture = fixture().await;
    let instance = |port: u16| Instance::new(book(), format!("127.0.0.1:{port}")).unwrap();
    let mut held = Vec::new();
    for (port, format) in [(1, "curator"), (2, "gokit"), (3, "kratos"), (4, "kitex")] {
        let registry = at(&fixture, "", &format!("format={format}"));
        held.push(ok(registry.register(instance(port)).await, format));
    }
    let curator = data(&fixture, "/services/book/127.0.0.1:1").await;
    assert!(curator.starts_with(r#"{"name":"book","id":"127.0.0.1:1","address":"127.0.0.1","port":1,"sslPort":null,"payload":null,"registrationTimeUTC":1"#), "{curator}");
    assert_eq!(data(&fixture, "/services/book/127.0.0.1:2").await, "127.0.0.1:2");
    let kratos = r#"{"id":"127.0.0.1:3","name":"book","version":"","metadata":null,"endpoints":["grpc://127.0.0.1:3"]}"#;
    assert_eq!(data(&fixture, "/microservices/book/127.0.0.1:3").await, kratos);
    assert_eq!(data(&fixture, "/book/127.0.0.1:4").await, r#"{"Weight":10,"Tags":{}}"#);
    for parent in ["/services", "/services/book"] {
        let node = fixture.raw().get(parent).await.unwrap().unwrap();
        assert_eq!(
            (node.owner, node.data.len()),
            (0, 0),
            "{parent} is a plain node, as Spring Cloud makes it"
        );
    }
    let all = at(&fixture, "", "read=kratos,kitex");
    let mut watch = all.watch(&book());
    until(&mut watch, SOON, "all are seen", |s| s.len() == 4).await;
    assert_eq!(ok(all.services().await, "services"), [book()]);
    // Somebody else's, by hand.
    fixture.raw().put("/microservices/book/by-hand", b"http://127.0.0.1:5").await.unwrap();
    until(&mut watch, SOON, "that too", |s| s.len() == 5).await;
    assert_eq!(at(&fixture, "/microservices", "").watch(&book()).ready().await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_format_without_states_withdraws_and_returns() {
    let fixture = ZooKeeperFixture::with_format(open, Format::GoKit).await;
    let tuning = Tuning { drain: Some(Duration::ZERO), ..Tuning::default() };
    let registry = ok(fixture.open(&tuning), "open");
    let registration = ok(registry.register(Instance::new(book(), "10.0.0.1:80").unwrap()).await, "register");
    ok(registration.drain().await, "drain");
    assert_eq!(fixture.count(&book()).await.unwrap(), 0);
    let up = Instance::clone(&registration.instance()).with_state(State::Up);
    ok(registration.update(up).await, "update");
    assert_eq!(fixture.count(&book()).await.unwrap(), 1);
    ok(registration.deregister().await, "deregister");
    assert_eq!(fixture.count(&book()).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_are_made_and_containers_are_containers() {
    let fixture = fixture().await;
    let registry = at(&fixture, "/deep/chroot/services", "parents=container&drain=0s");
    assert!(registry.check().await.is_ok());
    assert_eq!(fixture.raw().children("/").await.unwrap(), ["zookeeper"], "a check leaves nothing behind");
    let instance = || Instance::new(book(), "10.0.0.1:80").unwrap();
    let registration = ok(registry.register(instance()).await, "register");
    ok(registration.deregister().await, "deregister");
    // A server that is not the testbed's own looks once a minute.
    let gone = async || fixture.raw().children("/deep/chroot/services").await.unwrap().is_empty();
    eventually(Duration::from_secs(90), "the container is removed", gone).await;
    assert_eq!(fixture.raw().children("/deep/chroot").await.unwrap(), ["services"], "what is above it stays");
    let again = ok(registry.register(instance()).await, "it is made again");
    assert_eq!(fixture.raw().children("/deep/chroot/services").await.unwrap(), ["book"]);
    drop(again);
}

/// The session goes on, and would keep a probe for as long as the registry is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_is_given_up_leaves_nothing_behind() {
    const ANSWER: Duration = Duration::from_millis(40);
    let fixture = fixture().await;
    let registry = ok(fixture.open(&Tuning::default()), "open");
    ok(registry.services().await, "connected");
    fixture.link().unwrap().latency(ANSWER / 2);
    // After each of its questions.
    for n in 1..=10 {
        let _ = timeout(ANSWER * n + ANSWER / 4, registry.check()).await;
    }
    sleep(ANSWER * 2).await;
    assert_eq!(fixture.raw().children("/").await.unwrap(), ["zookeeper"]);
}

/// Any of them may hold the id inside, and to ask them one after another takes as many answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_is_removed_from_afar() {
    const MANY: usize = 1000;
    let fixture = fixture().await;
    fixture.write_many(&book(), &(0..MANY).collect::<Vec<_>>(), 0).await.unwrap();
    // Two endpoints, of which one is to go.
    let both = br#"{"endpoints":["grpc://10.1.0.1:9000","http://10.1.0.1:8000"]}"#;
    fixture.raw().put(&format!("{}/both", fixture.path(&book())), both).await.unwrap();
    let registry = ok(fixture.open(&Tuning::default()), "open");
    ok(registry.services().await, "connected");
    fixture.link().unwrap().latency(Duration::from_millis(5));
    for (left, id) in [(MANY, "both@http"), (MANY - 1, "10.0.0.7:50051")] {
        let id: InstanceId = id.parse().unwrap();
        ok(timeout(SOON, registry.remove(&book(), &id)).await.expect("it takes no longer"), &id);
        assert_eq!(fixture.count(&book()).await.unwrap(), left);
    }
    let error = registry.remove(&book(), &"both@http".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
