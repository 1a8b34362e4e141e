//! Answers that are none of Eureka's, or none that are good: they are named.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use callsign_core::{ErrorKind, Finding, ServiceName, Snapshot};
use callsign_testkit::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::{book, instance, measured, open, secs, start};

/// Something that gives each request the same answer; it is no registry.
async fn always(answer: &'static str) -> (String, tokio::task::JoinSet<()>) {
    let (url, _, tasks) = counting(answer).await;
    (url, tasks)
}

/// The same, and it counts.
async fn counting(answer: &'static str) -> (String, Arc<AtomicUsize>, tokio::task::JoinSet<()>) {
    let asked = Arc::<AtomicUsize>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("eureka://{}/eureka?poll=100ms", listener.local_addr().unwrap());
    let (mut tasks, counted) = (tokio::task::JoinSet::new(), Arc::clone(&asked));
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked, tasks)
}

const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 49\r\nConnection: close\r\n\r\n\
    <!DOCTYPE html><html><body>Sign in</body></html>\n";
const REFUSED: &str = "HTTP/1.1 400 \r\nContent-Type: application/xml\r\nContent-Length: 16\r\nConnection: close\r\n\r\nMissing hostname";
const LIMITED: &str = "HTTP/1.1 503 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const MOVED: &str =
    "HTTP/1.1 302 \r\nLocation: https://example.org/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const NOT_GZIP: &str =
    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_good_answer_is_named() {
    for (answer, kind, says) in [
        (HTML, ErrorKind::Malformed, "it is HTML"),
        (REFUSED, ErrorKind::Invalid, "Missing hostname"),
        (LIMITED, ErrorKind::Exhausted, "503"),
        (MOVED, ErrorKind::Unsupported, "redirects are not followed"),
        (NOT_GZIP, ErrorKind::Malformed, "cannot be decompressed"),
    ] {
        let (url, _tasks) = always(answer).await;
        let registry = open(&url);
        let mut watch = registry.watch(&book());
        let failed = until(&mut watch, secs(5), "failed", |s| s.freshness().error().is_some()).await;
        let error = failed.freshness().error().unwrap();
        assert!(error.kind() == kind && error.chain().contains(says), "{answer}: {}", error.chain());
        if kind == ErrorKind::Invalid {
            let refused = registry.register(instance(1)).await.unwrap_err();
            assert!(refused.kind() == kind && refused.chain().contains(says), "{}", refused.chain());
        }
    }
}

const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 77\r\nConnection: close\r\n\r\n\
    {\"applications\":{\"versions__delta\":\"1\",\"apps__hashcode\":\"\",\"application\":[]}}";

/// However many services are followed, everything is asked for once in a while, for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_question_is_for_all_who_follow() {
    let (url, asked, _tasks) = counting(EMPTY).await;
    let registry = open(&url.replace("poll=100ms", "poll=400ms"));
    let mut watches = Vec::new();
    for n in 0..30 {
        let name: ServiceName = format!("s{n}").parse().unwrap();
        let mut watch = registry.watch(&name);
        until(&mut watch, secs(5), "listed", |s| s.freshness().is_fresh()).await;
        watches.push(watch);
    }
    let before = asked.load(Ordering::Relaxed);
    tokio::time::sleep(secs(4)).await;
    let polls = asked.load(Ordering::Relaxed) - before;
    // Ten to thirteen of them, and not three hundred.
    assert!((8..=20).contains(&polls), "{polls} questions");
}

/// Many services are followed, and the server hangs: all who follow hear of it at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_told_to_all_who_wait() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = open(&format!("eureka://{}/eureka?poll=100ms&fetch=all", hangs.local_addr().unwrap()));
    let begun = Instant::now();
    let watches = (0..50).map(|n| registry.watch(&format!("s{n}").parse::<ServiceName>().unwrap()));
    for mut watch in watches.collect::<Vec<_>>() {
        let failed = |s: &Snapshot| s.freshness().error().is_some();
        // One request's time, and a little for a busy machine.
        until(&mut watch, secs(8).saturating_sub(begun.elapsed()), "it hangs", failed).await;
    }
    measured("a server hangs, and the last of fifty knows after", begun.elapsed());
}

/// A path without applications is an error, and no empty service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_path_is_named() {
    let (server, _, good) = start(&[]).await;
    for path in ["/", "/eureka/apps", "/v2"] {
        let registry = open(&format!("eureka://{}{path}?poll=100ms", server.addr()));
        let mut watch = registry.watch(&book());
        let failed = until(&mut watch, secs(5), "failed", |s| s.freshness().error().is_some()).await;
        assert!(failed.freshness().is_pending());
        let error = failed.freshness().error().unwrap().chain();
        assert!(error.contains("/eureka in most places"), "{path}: {error}");
        let refused = registry.register(instance(1)).await.unwrap_err().chain();
        assert!(refused.contains("/eureka"), "{path}: {refused}");
        assert!(registry.check().await.reach.is_refused());
    }
    // As Netflix' own paths are, and Spring's server has too.
    let v2 = open(&good.replace("/eureka?", "/eureka/v2?"));
    assert!(matches!(v2.check().await.reach, Finding::Works(_)));
}
