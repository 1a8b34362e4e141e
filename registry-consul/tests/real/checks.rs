//! Whom Consul takes for alive: checks of the agent's own, and the operator's word.

use callsign_core::{Snapshot, Status};
use callsign_testkit::wait::{until, until_status};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{book, fresh, instance, measured, open_at, secs, start};

/// Answers whatever it is asked over HTTP with one status, until it is dropped.
async fn answering(port: u16, status: &'static str) -> JoinSet<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 1024];
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            // The agent may hang up at any time.
            if stream.read(&mut asked).await.is_ok() {
                drop(stream.write_all(answer.as_bytes()).await);
            }
        }
    });
    task
}

/// Who is not reached is not listed, and stays registered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_looks_for_itself() {
    let (consul, raw) = start().await;
    for (check, status) in [("tcp", "200 OK"), ("http:/health", "204 No Content")] {
        let port = callsign_testkit::ports::Port::reserve().unwrap();
        let mut server = answering(port.number(), status).await;
        let registry = open_at(consul.addr(), &format!("/?ttl=4s&grace=0s&check={check}"));
        let mut registration = registry.register(instance(port.number())).await.unwrap();
        let mut watch = registry.watch(&book());
        until(&mut watch, secs(5), "listed", fresh(1)).await;
        let begun = Instant::now();
        server.shutdown().await;
        until(&mut watch, secs(6), "not reached", fresh(0)).await;
        measured(&format!("{check} finds a closed port after"), begun.elapsed());
        // Longer than a TTL: nothing is lost, and nobody registers it again.
        let index = created(&raw).await;
        tokio::time::sleep(secs(5)).await;
        assert!(registration.status().is_registered(), "{:?}", registration.status());
        assert_eq!((created(&raw).await, watch.snapshot().len()), (index, 0));
        server = answering(port.number(), status).await;
        until(&mut watch, secs(6), "reached", fresh(1)).await;
        server.shutdown().await;
        let _unwell = answering(port.number(), "500 No").await;
        if check != "tcp" {
            until(&mut watch, secs(6), "it says that it is not well", fresh(0)).await;
        }
        until_status(&mut registration, secs(1), "registered", Status::is_registered).await;
        registration.deregister().await.unwrap();
        assert_eq!(raw.get("health/service/book").await.unwrap(), serde_json::json!([]));
    }
}

async fn created(raw: &callsign_testkit::consul::Api) -> Value {
    raw.get("health/service/book").await.unwrap()[0]["Service"]["CreateIndex"].clone()
}

/// What an operator takes out of service stays out, and is not taken for lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_is_respected() {
    let (consul, raw) = start().await;
    let registry = open_at(consul.addr(), "/?ttl=3s&verify=1s&grace=0s");
    let registration = registry.register(instance(1)).await.unwrap();
    let mut watch = registry.watch(&book());
    until(&mut watch, secs(5), "listed", fresh(1)).await;
    let maintenance =
        |on: bool| format!("agent/service/maintenance/book:127.0.0.1:1?enable={on}&reason=test");
    raw.put(&maintenance(true), &Value::Null).await.unwrap();
    until(&mut watch, secs(5), "out of service", fresh(0)).await;
    let index = created(&raw).await;
    // Several renewals, and looks at the own entry.
    tokio::time::sleep(secs(5)).await;
    assert!(registration.status().is_registered(), "{:?}", registration.status());
    let is_out = |s: &Snapshot| s.is_empty() && s.freshness().is_fresh();
    assert!(is_out(&watch.snapshot()));
    assert_eq!(created(&raw).await, index);
    raw.put(&maintenance(false), &Value::Null).await.unwrap();
    until(&mut watch, secs(5), "in service", fresh(1)).await;
    registration.deregister().await.unwrap();
}
