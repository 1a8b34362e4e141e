//! What others register, what Consul makes of ours, and what it refuses.

use callsign_core::{ErrorKind, Finding, Freshness, Instance, Snapshot, State, Status};
use callsign_testkit::consul::Consul;
use callsign_testkit::wait::{eventually, until, until_status};
use serde_json::{Value, json};

use crate::{book, fresh, ids, instance, open, open_at, secs, start};

async fn entry(raw: &callsign_testkit::consul::Api) -> Value {
    raw.get("health/service/book").await.unwrap()[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_look_right_to_others() {
    let (consul, raw) = start().await;
    let registry = open_at(consul.addr(), "/?drain=300ms");
    let content = instance(50051).with_protocol("grpc").unwrap().with_weight(3);
    let content = content.with_zone("eu-1").unwrap().with_metadata("team", "library").unwrap();
    let registration = registry.register(content).await.unwrap();
    let told = entry(&raw).await;
    let service = &told["Service"];
    assert_eq!(service["ID"], "book:127.0.0.1:50051");
    assert_eq!((&service["Address"], &service["Port"]), (&json!("127.0.0.1"), &json!(50051)));
    assert_eq!(service["Meta"]["team"], "library");
    assert_eq!(service["Weights"], json!({ "Passing": 3, "Warning": 1 }));
    // What Kratos reads.
    assert_eq!(service["TaggedAddresses"]["grpc"]["Address"], "grpc://127.0.0.1:50051");
    assert_eq!(raw.get("health/service/book?passing=1").await.unwrap().as_array().unwrap().len(), 1);
    // Who leaves is found by nobody else, and still there for whom it serves.
    registration.drain().await.unwrap();
    eventually(secs(3), "not passing", async || {
        raw.get("health/service/book?passing=1").await.unwrap().as_array().unwrap().is_empty()
    })
    .await;
    let mut watch = registry.watch(&book());
    let draining = |s: &Snapshot| s.iter().any(|listed| listed.state() == State::Draining);
    until(&mut watch, secs(3), "draining", draining).await;
    registration.deregister().await.unwrap();
    assert_eq!(raw.get("health/service/book").await.unwrap(), json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_register_is_found_while_it_lives() {
    let (consul, raw) = start().await;
    let registry = open_at(consul.addr(), "/?grace=0s");
    let mut watch = registry.watch(&book());
    let body = json!({
        "ID": "book-8080", "Name": "book", "Address": "10.0.0.1", "Port": 8080,
        "Meta": { "secure": "false", "zone": "z1" }, "Check": { "CheckID": "c", "TTL": "1m", "Status": "passing" },
    });
    raw.put("agent/service/register", &body).await.unwrap();
    let found = until(&mut watch, secs(5), "found", fresh(1)).await;
    let one = found.iter().next().unwrap();
    assert_eq!((one.id().as_str(), one.protocol(), one.zone()), ("book-8080@n1", Some("http"), Some("z1")));
    for (verb, count) in [("warn", 0), ("pass", 1), ("fail", 0), ("pass", 1)] {
        raw.put(&format!("agent/check/{verb}/c"), &Value::Null).await.unwrap();
        until(&mut watch, secs(5), verb, fresh(count)).await;
    }
    let warned = open_at(consul.addr(), "/?grace=0s&warnings=true");
    raw.put("agent/check/warn/c", &Value::Null).await.unwrap();
    until(&mut warned.watch(&book()), secs(5), "found though it warns", fresh(1)).await;
    raw.put("agent/check/pass/c", &Value::Null).await.unwrap();
    until(&mut watch, secs(5), "passing", fresh(1)).await;
    raw.put("agent/maintenance?enable=true", &Value::Null).await.unwrap();
    until(&mut watch, secs(5), "its node is in maintenance", fresh(0)).await;
    raw.put("agent/maintenance?enable=false", &Value::Null).await.unwrap();
    until(&mut watch, secs(5), "and back", fresh(1)).await;
    // By hand, as the command does.
    registry.remove(&book(), &"book-8080@n1".parse().unwrap()).await.unwrap();
    until(&mut watch, secs(5), "removed", fresh(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_and_filters_narrow_what_is_found() {
    let (consul, raw) = start().await;
    for (n, tags) in [(1, json!(["a"])), (2, json!(["a", "b"])), (3, Value::Null)] {
        let body =
            json!({ "ID": format!("i{n}"), "Name": "book", "Address": "10.0.0.1", "Port": n, "Tags": tags });
        raw.put("agent/service/register", &body).await.unwrap();
    }
    for (query, found) in [
        ("", vec!["i1@n1", "i2@n1", "i3@n1"]),
        ("?tags=a", vec!["i1@n1", "i2@n1"]),
        ("?tags=a,b", vec!["i2@n1"]),
        ("?filter=Service.Port==3", vec!["i3@n1"]),
        ("?consistency=consistent&near=_agent", vec!["i1@n1", "i2@n1", "i3@n1"]),
        ("?consistency=stale", vec!["i1@n1", "i2@n1", "i3@n1"]),
        ("?consistency=cached", vec!["i1@n1", "i2@n1", "i3@n1"]),
    ] {
        let mut watch = open_at(consul.addr(), &format!("/{query}")).watch(&book());
        until(&mut watch, secs(5), query, |s| ids(s) == found).await;
        // And it is followed.
        raw.register("book", "i9", "10.0.0.1", 9).await.unwrap();
        let nine = query.is_empty() || query.contains("consistency");
        if nine {
            until(&mut watch, secs(5), query, |s| s.len() == found.len() + 1).await;
        }
        raw.deregister("i9").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_consul_refuses_is_said() {
    let (consul, _raw) = start().await;
    let elsewhere = open_at(consul.addr(), "/?datacenter=nowhere");
    let unknown = |s: &Snapshot| matches!(s.freshness(), Freshness::Pending { error: Some(e) } if e.kind() == ErrorKind::NotFound && e.chain().contains("nowhere"));
    until(&mut elsewhere.watch(&book()), secs(5), "unknown datacenter", unknown).await;
    let registry = open_at(consul.addr(), "");
    let large = Instance::new("book", "127.0.0.1:1").unwrap().with_metadata("k", "x".repeat(40_000)).unwrap();
    let error = registry.register(large).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.to_string().contains("64 pairs"),
        "{}",
        error.chain()
    );
    // Keys and values that Consul has no room for as they are.
    let odd =
        instance(2).with_metadata("a.b", "c").unwrap().with_metadata("long", "x".repeat(2_000)).unwrap();
    let _registration = registry.register(odd.clone()).await.unwrap();
    let mut watch = registry.watch(&book());
    let found = until(&mut watch, secs(5), "found", fresh(1)).await;
    assert_eq!(&**found.iter().next().unwrap().instance(), &odd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_reached_by_its_socket() {
    let (consul, _raw) = start().await;
    let socket = Consul::socket(&consul);
    let registry = open(&format!("consul:///?socket={}", socket.display()));
    let report = registry.check().await;
    assert!(report.is_ok(), "{report}");
    let registration = registry.register(instance(1)).await.unwrap();
    let mut watch = open_at(consul.addr(), "").watch(&book());
    until(&mut watch, secs(5), "registered", fresh(1)).await;
    registration.deregister().await.unwrap();
    let nowhere = open("consul:///?socket=/nowhere/consul.sock").check().await;
    let said = match &nowhere.reach {
        Finding::Refused(error) => error.chain(),
        other => other.to_string(),
    };
    assert!(said.contains("unix:///nowhere/consul.sock") && said.contains("No such file"), "{said}");
}

/// What an earlier registration of the id was writing may come after the write of the one that has it now: the last
/// registration has the id, whichever write comes last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_comes_late_supersedes_nobody() {
    let (consul, raw) = start().await;
    let registry = open_at(consul.addr(), "/?ttl=6s&verify=1s");
    let mut registration = registry.register(instance(1)).await.unwrap();
    let mark = async || entry(&raw).await["Service"]["Meta"]["callsign-incarnation"].clone();
    let write = async |theirs: &str| {
        let written = json!({
            "ID": "book:127.0.0.1:1", "Name": "book", "Address": "127.0.0.1", "Port": 1,
            "Meta": { "callsign-id": "127.0.0.1:1", "callsign-incarnation": theirs },
            "Check": { "CheckID": format!("callsign:{theirs}"), "TTL": "6s", "Status": "passing" },
        });
        raw.put("agent/service/register?replace-existing-checks=true", &written).await.unwrap();
        eventually(secs(1), "it was written", async || mark().await == theirs).await;
    };
    let ours = mark().await;
    write("00000000000001-00000000").await;
    eventually(secs(6), "it is written anew", async || mark().await == ours).await;
    until_status(&mut registration, secs(6), "registered", Status::is_registered).await;
    let later = "ffffffffffffff-00000000";
    write(later).await;
    until_status(&mut registration, secs(6), "superseded", |s| matches!(s, Status::Superseded)).await;
    assert_eq!(mark().await, later);
}
