//! What the channel's own transport does that tonic's leaves to chance. `Rust peers N` are the traps of PEERS.md, by
//! their numbers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy sees no test in what a macro makes one of"
)]

#[macro_use]
mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use callsign_lb::RoundRobin;
use callsign_lb::grpc::{Channel, Http2};
use callsign_testkit::proxy::{Diallers, Proxy};
use http::HeaderValue;
use support::echo::{Echo, ask, echo};
use support::grpc::{Greeter, Over, Server, answered_by, call, ready, servers};
use support::{Script, eventually, memory, service, within};
use tokio::task::JoinSet;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;

/// Over both transports: 4 MB there and back, in the clear and compressed, and the client's own limit.
async fn large_messages_and_compression(over: Over) {
    let (server, at) = Echo::start(None).await;
    let (script, _registry, watch) = Script::open();
    let channel = over.channel(watch);
    script.lists([at.port()]);
    let large = Bytes::from(vec![7; 4 * 1024 * 1024]);
    let mut client = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(5 * 1024 * 1024);
    assert!(ask(&mut client, large.clone()).await.unwrap().into_inner() == large);
    let mut client =
        client.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    assert!(ask(&mut client, large.clone()).await.unwrap().into_inner() == large);
    assert_eq!(server.seen.compressed.load(Ordering::SeqCst), 1);
    // tonic's own limit is 4 MiB with all that belongs to the message.
    let status = echo(channel.clone(), vec![7; 4 * 1024 * 1024 + 1]).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert_eq!(channel.endpoints().ready_set().slots()[0].stats().in_flight(), 0);
}

/// Over both: an answer that is a status alone, which has no body.
async fn trailers_only(over: Over) {
    let (_server, at) = Echo::start(None).await;
    let (script, _registry, watch) = Script::open();
    let channel = over.channel(watch);
    script.lists([at.port()]);
    for _ in 0..10 {
        let status = echo(channel.clone(), "fail").await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "as asked"));
    }
    // What the server does not have at all.
    let status = call(&channel, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    assert_eq!(channel.endpoints().ready_set().slots()[0].stats().in_flight(), 0);
}

/// Over both: a thousand streams at the same time on one instance, each of which is alive.
async fn a_thousand_streams(over: Over) {
    let server = Server::start().await;
    let (script, _registry, watch) = Script::open();
    let channel = over.channel(watch);
    script.lists([server.port]);
    ready(&channel, 1).await;
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let mut client = HealthClient::new(channel.clone());
        streams.push(client.watch(support::grpc::ask("open:2")).await.unwrap().into_inner());
    }
    for stream in &mut streams {
        assert!(stream.message().await.unwrap().is_some() && stream.message().await.unwrap().is_some());
    }
    let in_flight = || channel.endpoints().ready_set().slots()[0].stats().in_flight();
    assert_eq!((in_flight(), server.acts.running.load(Ordering::SeqCst)), (1000, 1000));
    drop(streams);
    assert_eq!(in_flight(), 0);
    eventually("cancelled on the server", || server.acts.running.load(Ordering::SeqCst) == 0).await;
}

over_both! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    large_messages_and_compression,
    trailers_only,
    a_thousand_streams,
}

/// What the server says of who asked and for what.
#[tokio::test]
async fn says_where_a_call_goes_and_who_makes_it() {
    let (_server, at) = Echo::start(None).await;
    let (script, _registry, watch) = Script::open();
    let said = |channel: Channel| async move {
        let answer = echo(channel, "").await.unwrap();
        ["x-scheme", "x-authority", "x-agent"]
            .map(|name| answer.metadata().get(name).unwrap().to_str().unwrap().to_owned())
    };
    script.lists([at.port()]);
    let own = concat!("grpc-rust-callsign/", env!("CARGO_PKG_VERSION"));
    let plain = said(Channel::new(watch.clone())).await;
    assert_eq!(plain, ["http".to_owned(), at.to_string(), own.to_owned()]);
    let http2 = Http2::new()
        .user_agent(&HeaderValue::from_static("book-client/1.0"))
        .authority("book.example.org".parse().unwrap());
    let told = said(Channel::builder(watch).http2(http2).build()).await;
    assert_eq!(told, ["http".to_owned(), "book.example.org".to_owned(), format!("book-client/1.0 {own}")]);
}

/// Begins calls that wait for ever.
fn hang(channel: &Channel, count: usize) -> JoinSet<Result<(), Status>> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let channel = channel.clone();
        calls.spawn(async move { echo(channel, "hang").await.map(drop) });
    }
    calls
}

/// Rust peers 12: one connection is not the ceiling. It gets as many calls as the server allows, and not one more; then
/// there is another connection, up to the limit; then calls wait, up to a limit again, in the order in which they came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_open_by_need_and_the_queue_is_bounded() {
    let (server, at) = Echo::start(Some(10)).await;
    let (script, _registry, watch) = Script::open();
    let channel = Channel::builder(watch).http2(Http2::new().connections(3).queue(20)).build();
    script.lists([at.port()]);
    ready(&channel, 1).await;
    let (running, connections) =
        (|| server.seen.running.load(Ordering::SeqCst), || server.seen.connections.load(Ordering::SeqCst));
    let mut first = hang(&channel, 10);
    eventually("ten run", || running() == 10).await;
    assert_eq!(connections(), 1, "one is enough");
    let second = hang(&channel, 20);
    eventually("thirty run", || running() == 30).await;
    assert_eq!(connections(), 3);
    let mut queued = Vec::new();
    for n in 0..20 {
        let mut call = Box::pin(echo(channel.clone(), vec![n]));
        assert!(so_far(&mut call).await.is_none(), "it waits");
        queued.push(call);
    }
    let status = echo(channel.clone(), "one too many").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(callsign_lb::is_never_sent(&status), "{status:?}");
    assert_eq!(connections(), 3, "no more than the limit");
    // One that waits and is given up leaves its turn to the next.
    drop(queued.remove(0));
    first.abort_all();
    while first.join_next().await.is_some() {}
    for (n, call) in (1..).zip(queued) {
        let answer = within(Duration::from_secs(5), "its turn", call).await.unwrap();
        assert_eq!(answer.into_inner()[..], [n]);
    }
    assert!(server.seen.most.load(Ordering::SeqCst) <= 30);
    drop(second);
    eventually("cancelled on the server", || running() == 0).await;
    assert_eq!(channel.endpoints().ready_set().slots()[0].stats().in_flight(), 0);
    for n in 0..100 {
        assert_eq!(echo(channel.clone(), vec![n]).await.unwrap().into_inner()[..], [n]);
    }
}

/// What has come of it so far.
async fn so_far<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(1), future).await.ok()
}

/// However many calls there are: no connection is given more than the server allows, none is lost, and all places come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_through_few_places() {
    let (server, at) = Echo::start(Some(2)).await;
    let (script, _registry, watch) = Script::open();
    let channel = Channel::builder(watch).http2(Http2::new().connections(2)).build();
    script.lists([at.port()]);
    ready(&channel, 1).await;
    let mut calls = JoinSet::new();
    for task in 0..64_u8 {
        let channel = channel.clone();
        calls.spawn(async move {
            for n in 0..50_u8 {
                let call = echo(channel.clone(), vec![task, n]);
                if n % 7 == 3 {
                    // Given up at any moment.
                    let _ = tokio::time::timeout(Duration::from_micros(n.into()), call).await;
                } else {
                    assert_eq!(call.await.unwrap().into_inner()[..], [task, n]);
                }
            }
        });
    }
    let all = async {
        while let Some(done) = calls.join_next().await {
            done.unwrap();
        }
    };
    within(Duration::from_secs(30), "all calls", all).await;
    assert!(server.seen.connections.load(Ordering::SeqCst) <= 2);
    assert_eq!(channel.endpoints().ready_set().slots()[0].stats().in_flight(), 0);
}

/// A link to a server, and a channel that knows another one too.
async fn behind_a_link(http2: Http2) -> (Vec<Server>, Proxy, Channel) {
    let servers = servers(2).await;
    let proxy = Proxy::start(([127, 0, 0, 1], servers[0].port).into()).await.unwrap();
    let (script, _registry, watch) = Script::open();
    let channel = Channel::builder(watch).policy(RoundRobin::default()).http2(http2).build();
    script.lists([proxy.addr().port(), servers[1].port]);
    ready(&channel, 2).await;
    (servers, proxy, channel)
}

/// Rust peers 19: a peer behind which everything is lost leaves within interval and timeout, with no call at all.
#[tokio::test]
async fn a_black_hole_is_out_within_interval_and_timeout() {
    let (interval, timeout) = (Duration::from_millis(500), Duration::from_millis(300));
    let (_servers, proxy, channel) = behind_a_link(Http2::new().keepalive(interval, timeout)).await;
    // It stays as long as pings are answered.
    tokio::time::sleep(2 * (interval + timeout)).await;
    assert_eq!((channel.endpoints().ready_set().len(), proxy.accepted()), (2, 1));
    let begun = Instant::now();
    proxy.blackhole();
    ready(&channel, 1).await;
    let took = begun.elapsed();
    assert!(took < interval + timeout + Duration::from_millis(200), "{took:?}");
}

/// Who says nothing for a second while calls wait is dialled anew, and who does not answer that is out until it does.
/// What waits there is left to its own deadline.
#[tokio::test]
async fn who_falls_silent_is_out_until_it_answers() {
    let (servers, proxy, channel) = behind_a_link(Http2::new()).await;
    proxy.blackhole();
    let begun = Instant::now();
    let calls = |count: usize| {
        let mut calls = JoinSet::new();
        for _ in 0..count {
            let channel = channel.clone();
            calls.spawn(async move {
                let mut request = support::grpc::ask("");
                request.set_timeout(Duration::from_secs(4));
                HealthClient::new(channel).check(request).await
            });
        }
        calls
    };
    let early = calls(4);
    ready(&channel, 1).await;
    let took = begun.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(3)).contains(&took), "{took:?}");
    for _ in 0..20 {
        assert_eq!(answered_by(&call(&channel, "").await.unwrap()), servers[1].port);
    }
    let failed = early.join_all().await.into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().all(|status| status.code() == Code::DeadlineExceeded), "{failed:?}");
    proxy.heal();
    ready(&channel, 2).await;
}

/// One that is slow and there is dialled beside, and keeps its calls; it is not dialled all the time.
#[tokio::test]
async fn who_is_slow_stays() {
    let server = Server::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], server.port).into()).await.unwrap();
    let (script, _registry, watch) = Script::open();
    let channel = Channel::new(watch);
    script.lists([proxy.addr().port()]);
    ready(&channel, 1).await;
    for _ in 0..3 {
        let answer = call(&channel, "sleep:2500").await;
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(channel.endpoints().ready_set().len(), 1);
    }
    assert_eq!(proxy.accepted(), 2);
    eventually("the first is closed", || proxy.open() == 1).await;
}

/// A way that is broken for one connection only: the next one takes its place, and the instance stays in.
#[tokio::test]
async fn a_broken_way_is_replaced() {
    let server = Server::start().await;
    let known = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&known);
    let diallers: Diallers = std::sync::Arc::new(move |_, _| Some(count.fetch_add(1, Ordering::SeqCst)));
    let proxy = Proxy::for_diallers(([127, 0, 0, 1], server.port).into(), diallers).await.unwrap();
    let (script, _registry, watch) = Script::open();
    let channel = Channel::new(watch);
    script.lists([proxy.addr().port()]);
    ready(&channel, 1).await;
    call(&channel, "").await.unwrap();
    proxy.silence(0);
    let stuck = tokio::time::timeout(Duration::from_secs(4), call(&channel, ""));
    let (stuck, ()) = tokio::join!(stuck, async {
        eventually("dialled beside", || proxy.accepted() == 2).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        for _ in 0..10 {
            within(Duration::from_secs(1), "by the new way", call(&channel, "")).await.unwrap();
        }
        assert_eq!(channel.endpoints().ready_set().len(), 1);
    });
    assert!(stuck.is_err(), "what was on the broken way is lost: {stuck:?}");
}

/// A server may be pinged and given all the time there is to answer.
#[tokio::test]
async fn a_keepalive_without_end_ends_nothing() {
    let (server, at) = Echo::start(None).await;
    let (script, _registry, watch) = Script::open();
    let http2 = Http2::new().keepalive(Duration::from_millis(5), Duration::MAX);
    let channel = Channel::builder(watch).http2(http2).build();
    script.lists([at.port()]);
    ready(&channel, 1).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        within(Duration::from_secs(1), "an answer", echo(channel.clone(), "a")).await.unwrap();
    }
    assert_eq!(server.seen.connections.load(Ordering::SeqCst), 1);
}

/// Neither a dial that is given up, nor calls, nor more connections than one leave anything behind.
#[tokio::test]
async fn nothing_is_left_of_a_channel_with_several_connections() {
    let (server, at) = Echo::start(Some(5)).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (script, _registry, watch) = Script::open();
    script.lists([at.port(), silent.local_addr().unwrap().port()]);
    watch.clone().ready().await.unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for round in 1..=3 {
        let channel = Channel::new(watch.clone());
        ready(&channel, 1).await;
        let calls = hang(&channel, 15);
        eventually("all run", || server.seen.running.load(Ordering::SeqCst) == 15).await;
        assert_eq!(server.seen.connections.load(Ordering::SeqCst), round * 3);
        drop(channel);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(server.seen.running.load(Ordering::SeqCst), 15, "calls go on");
        drop(calls);
        eventually("all tasks ended", || tasks() == before).await;
    }
}

/// Another connection stays for as long as it may be needed again: a minute.
#[tokio::test]
async fn a_connection_too_many_closes_after_a_minute() {
    let (server, at) = Echo::start(Some(5)).await;
    let (script, _registry, watch) = Script::open();
    let channel = Channel::new(watch);
    script.lists([at.port()]);
    ready(&channel, 1).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let with_one = tasks();
    let (running, connections) =
        (|| server.seen.running.load(Ordering::SeqCst), || server.seen.connections.load(Ordering::SeqCst));
    let calls = hang(&channel, 8);
    eventually("all run", || running() == 8).await;
    assert_eq!(connections(), 2);
    drop(calls);
    eventually("none runs", || running() == 0).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(tasks() > with_one, "it is still open");
    tokio::time::resume();
    let calls = hang(&channel, 8);
    eventually("all run", || running() == 8).await;
    // Seen by the keeper, who looks four times a second.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(calls);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(tasks() > with_one, "the minute begins anew");
    tokio::time::sleep(Duration::from_secs(2)).await;
    tokio::time::resume();
    eventually("closed", || tasks() == with_one).await;
    assert_eq!(echo(channel, "still there").await.unwrap().into_inner(), "still there");
    assert_eq!(connections(), 2);
}

/// A connection that nobody needs is closed at once, whatever the server does.
#[tokio::test]
async fn an_idle_connection_closes_at_once() {
    let greeter = Greeter::start().await;
    let registry = memory();
    let channel = Channel::new(registry.watch(&service()));
    let registration = registry.register(support::book(greeter.port)).await.unwrap();
    ready(&channel, 1).await;
    registration.deregister_within(Duration::ZERO).await.unwrap();
    eventually("closed", || greeter.open() == 0).await;
}

#[cfg(unix)]
#[tokio::test]
async fn by_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let _server = Echo::over(tokio_stream::wrappers::UnixListenerStream::new(listener), None);
    let (script, _registry, watch) = Script::open();
    // Nobody listens there.
    script.lists([1]);
    let socket = path.clone();
    let http2 = Http2::new().unix_socket(move |_| Some(socket.clone()));
    let channel = Channel::builder(watch.clone()).http2(http2).build();
    for n in 0..10 {
        assert_eq!(echo(channel.clone(), vec![n]).await.unwrap().into_inner()[..], [n]);
    }
    let gone = Http2::new().unix_socket(|_| Some("/nowhere/echo.sock".into()));
    let channel = Channel::builder(watch).http2(gone).build();
    channel.endpoints().wait_for(|set| set.error().is_some_and(|error| !error.is_not_yet())).await;
    let status = echo(channel, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}
