//! Lists that a server refuses.

use callsign_core::ErrorKind;
use callsign_testkit::eureka::path;
use callsign_testkit::wait::{eventually, ok, until};
use serde_json::json;
use tokio::time::sleep;

use crate::front::{Does, Front};
use crate::{book, fresh, instance, open, secs, start};

/// A server that was just started shows no lists yet; its peer has all of them. Who registers stays where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_that_a_server_does_not_show_yet_come_from_another() {
    let closed = [
        "eureka.instance.registry.default-open-for-traffic-count=0",
        "eureka.server.wait-time-in-ms-when-sync-empty=600000",
    ];
    let (closed, at_closed, _) = start(&closed).await;
    let (server, raw, _) = start(&[]).await;
    raw.register("book", "i1", "127.0.0.1", 1, &json!({})).await.unwrap();
    let (first, second) = (Front::start(closed.addr()).await, Front::start(server.addr()).await);
    for fetch in ["each", "all"] {
        let url =
            format!("eureka://{},{}/eureka?poll=100ms&ttl=4s&fetch={fetch}", first.addr(), second.addr());
        let registry = open(&url);
        let mut watch = registry.watch(&book());
        until(&mut watch, secs(5), "one", fresh(1)).await;
        until(&mut registry.watch(&"nobody".parse().unwrap()), secs(5), "none of another", fresh(0)).await;
        let registration = ok(registry.register(instance(7)).await, "register");
        let id = path("book", "127.0.0.1:7");
        let renewed =
            async || at_closed.call("GET", &id, None).await.is_ok_and(|answer| answer.status == 200);
        eventually(secs(3), "it is registered with the first", renewed).await;
        drop((first.seen(), second.seen()));
        sleep(secs(2)).await;
        assert!(watch.snapshot().freshness().is_fresh());
        let lists = |front: &Front| {
            front
                .seen()
                .into_iter()
                .filter(|seen| {
                    seen.path == "apps" || seen.path.starts_with("apps/delta") || seen.path == "apps/BOOK"
                })
                .collect::<Vec<_>>()
        };
        let (vain, told) = (lists(&first), lists(&second));
        assert!(vain.is_empty() && told.len() > 3, "{vain:?}, {told:?}");
        assert_eq!(told.iter().filter(|seen| seen.path == "apps").count(), 0, "changes do: {told:?}");
        ok(registration.deregister_within(secs(1)).await, "deregister");
    }
}

/// Who may not read is told so, whichever server says it and whatever the others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_is_told_so_with_two_servers() {
    let (server, _, _) = start(&[]).await;
    let (first, second) = (Front::start(server.addr()).await, Front::start(server.addr()).await);
    first.does(|_, _| Does::Refuse(403));
    let registry = open(&format!("eureka://{},{}/eureka?poll=100ms&fetch=each", first.addr(), second.addr()));
    for other in [403, 503] {
        second.does(move |_, _| Does::Refuse(other));
        let mut watch = registry.watch(&book());
        let failed = until(&mut watch, secs(5), "refused", |s| s.freshness().error().is_some()).await;
        let error = failed.freshness().error().unwrap();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{other}: {}", error.chain());
    }
}
