//! Calls through `grpc::Channel` by a generated client, to real tonic servers. `Rust peers N` are the traps of
//! PEERS.md, by their numbers.

#![cfg(feature = "grpc")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy sees no test in what a macro makes one of"
)]

#[macro_use]
mod support;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use callsign_core::State;
use callsign_lb::grpc::Channel;
use callsign_lb::{Key, Maglev, PickError, RoundRobin};
use support::grpc::{Over, Server, answered_by, ask, call, ready, servers};
use support::{Script, book, eventually, memory, service, within};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;

async fn scene(over: Over, count: usize) -> (Vec<Server>, Script, Channel) {
    let servers = servers(count).await;
    let (script, _registry, watch) = Script::open();
    let channel = over.channel(watch);
    script.lists(servers.iter().map(|server| server.port));
    ready(&channel, count).await;
    (servers, script, channel)
}

/// What a channel has of which nothing is said: it prefers the one that answers soonest, and leaves out the one that fails.
async fn by_default_the_slow_and_the_failing_get_few_calls(over: Over) {
    let (servers, _script, channel) = scene(over, 4).await;
    let seen = |at: usize| servers[at].acts.calls.load(Ordering::SeqCst);
    // Far more than a busy machine adds to the others.
    servers[0].acts.delay.store(200, Ordering::SeqCst);
    servers[1].acts.fails.store(true, Ordering::SeqCst);
    for _ in 0..400 {
        let _ = call(&channel, "").await;
    }
    assert!(seen(0) <= 20 && seen(1) <= 10, "{:?}", [0, 1, 2, 3].map(seen));
    assert_eq!(seen(2) + seen(3), 400 - seen(0) - seen(1));
}

fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}

/// The gRPC interop test `round_robin`: 100 calls over 4 are 25 each, through one handle and through clones.
async fn a_hundred_calls_over_four(over: Over) {
    let servers = servers(4).await;
    let (script, _registry, watch) = Script::open();
    let channel = over.builder(watch).policy(RoundRobin::default()).build();
    script.lists(servers.iter().map(|server| server.port));
    ready(&channel, 4).await;
    is_shared(&channel);
    let mut one = HealthClient::new(channel.clone());
    let mut counts = BTreeMap::<u16, u32>::new();
    for _ in 0..100 {
        let answer = one.check(ask("")).await.unwrap();
        *counts.entry(answered_by(&answer)).or_default() += 1;
    }
    assert!(counts.len() == 4 && counts.values().all(|&count| count == 25), "{counts:?}");
    for _ in 0..50 {
        one.clone().check(ask("")).await.unwrap();
    }
    // As where the state of a web server is cloned for each request, and the client in it for each call.
    for _ in 0..50 {
        one.clone().clone().check(ask("")).await.unwrap();
    }
    let seen: Vec<_> = servers.iter().map(|server| server.acts.calls.load(Ordering::SeqCst)).collect();
    assert_eq!(seen, [50; 4]);
}

async fn interceptors_work_as_with_tonics_own(over: Over) {
    let (_servers, _script, channel) = scene(over, 2).await;
    let mut client = HealthClient::with_interceptor(channel, |mut request: Request<()>| {
        request.metadata_mut().insert("x-token", "abc".parse().unwrap());
        Ok(request)
    });
    let status = client.check(ask("echo:x-token")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::AlreadyExists, "abc"));
    let channel = client.clone();
    is_shared(&channel);
}

/// What the server says is passed on as it is.
async fn the_servers_status_is_its_own(over: Over) {
    let (_servers, _script, channel) = scene(over, 1).await;
    for code in 1..=16 {
        let status = call(&channel, &format!("code:{code}")).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::from(code), "as asked"));
    }
    assert_eq!(channel.endpoints().ready_set().slots()[0].stats().in_flight(), 0);
}

/// Rust peers 18: a deadline is `DEADLINE_EXCEEDED`, whoever sets it, and the server is told to stop.
async fn deadlines_end_as_deadlines(over: Over) {
    let (servers, _script, channel) = scene(over, 1).await;
    let running = || servers[0].acts.running.load(Ordering::SeqCst);
    for _ in 0..20 {
        let mut request = ask("hang:");
        request.set_timeout(Duration::from_millis(30));
        let begun = Instant::now();
        let status = HealthClient::new(channel.clone()).check(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!((30..1000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        assert!(status.message().contains(&servers[0].port.to_string()), "{status}");
    }
    eventually("cancelled on the server", || running() == 0).await;

    let limited = over.builder(memory_with(&servers[0]).await).timeout(Duration::from_millis(50)).build();
    let status = call(&limited, "hang:").await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    // The shorter of the two counts.
    let mut request = ask("sleep:100");
    request.set_timeout(Duration::from_secs(10));
    let status = HealthClient::new(limited.clone()).check(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(call(&limited, "").await.is_ok());
    eventually("cancelled on the server", || running() == 0).await;
}

async fn memory_with(server: &Server) -> callsign_core::InstanceWatch {
    let (script, _registry, watch) = Script::open();
    script.lists([server.port]);
    watch
}

/// The server sees what is left of the deadline, not what it was at the start.
async fn the_deadline_travels(over: Over) {
    let server = Server::start().await;
    let (script, _registry, watch) = Script::open();
    let channel = over.builder(watch).timeout(Duration::from_secs(4)).build();
    let (status, ()) = tokio::join!(call(&channel, "echo:grpc-timeout"), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        script.lists([server.port]);
    });
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    let micros: u64 = status.message().strip_suffix('u').expect("microseconds").parse().unwrap();
    assert!((1_000_000..=3_500_000).contains(&micros), "{micros}");
}

/// A stream is bounded by its deadline too, and a deadline that is not reached changes nothing.
async fn the_deadline_covers_the_body(over: Over) {
    let (servers, _script, channel) = scene(over, 1).await;
    let mut client = HealthClient::new(channel.clone());
    let mut request = ask("open:2");
    request.set_timeout(Duration::from_millis(200));
    let mut stream = client.watch(request).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some() && stream.message().await.unwrap().is_some());
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(channel.endpoints().ready_set().slots()[0].stats().in_flight(), 0);
    eventually("cancelled on the server", || servers[0].acts.running.load(Ordering::SeqCst) == 0).await;

    let mut request = ask("end:3");
    request.set_timeout(Duration::from_secs(10));
    let mut stream = client.watch(request).await.unwrap().into_inner();
    for _ in 0..3 {
        assert!(stream.message().await.unwrap().is_some());
    }
    assert!(stream.message().await.unwrap().is_none());
}

/// A server that is never slow does not outrun the clock.
async fn the_deadline_ends_a_flood(over: Over) {
    let (_servers, _script, channel) = scene(over, 1).await;
    let mut request = ask("flood:1");
    request.set_timeout(Duration::from_millis(200));
    let begun = std::time::Instant::now();
    let flood = async {
        // On a busy machine the deadline may pass before the answer has begun.
        let mut stream = HealthClient::new(channel).watch(request).await?.into_inner();
        while stream.message().await?.is_some() {
            assert!(begun.elapsed() < Duration::from_secs(5), "no end");
        }
        Ok::<_, Status>(())
    };
    let status = flood.await.expect_err("a flood ends at its deadline only");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

/// What is to be secret is not sent in plain text because nobody has set TLS up.
async fn without_tls_nothing_is_sent_that_was_to_be_secret(over: Over) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let registry = memory();
    let _grpcs = registry.register(book(port).with_protocol("grpcs").unwrap()).await.unwrap();
    let channel = over.channel(registry.watch(&service()));
    let received = async {
        let mut received = Vec::<u8>::new();
        // Where there is no TLS at all nobody needs to connect.
        if let Ok(Ok((mut socket, _))) = tokio::time::timeout(Duration::from_secs(1), listener.accept()).await
        {
            let mut first = [0; 1024];
            let read = tokio::io::AsyncReadExt::read(&mut socket, &mut first).await.unwrap();
            received.extend(&first[..read]);
        }
        received
    };
    let (status, received) = tokio::join!(call(&channel, ""), received);
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("TLS"), "{status}");
    // The beginning of a handshake at most: its content type.
    assert!(received.first().is_none_or(|&first| first == 0x16), "{received:?}");
}

/// A call is in flight until its stream has ended, however that comes about.
async fn a_stream_is_in_flight_until_its_end(over: Over) {
    let (servers, _script, channel) = scene(over, 1).await;
    let in_flight = || channel.endpoints().ready_set().slots()[0].stats().in_flight();
    let mut client = HealthClient::new(channel.clone());
    let mut open = client.watch(ask("open:1")).await.unwrap().into_inner();
    let mut ends = client.watch(ask("end:1")).await.unwrap().into_inner();
    assert_eq!(in_flight(), 2);
    while ends.message().await.unwrap().is_some() {}
    assert_eq!(in_flight(), 1, "read to its end");
    assert!(open.message().await.unwrap().is_some());
    assert_eq!(in_flight(), 1, "and open as long as it is held");
    drop(open);
    assert_eq!(in_flight(), 0);
    // A call that is dropped before its head.
    assert!(tokio::time::timeout(Duration::from_millis(50), call(&channel, "hang:")).await.is_err());
    assert_eq!(in_flight(), 0);
    eventually("cancelled on the server", || servers[0].acts.running.load(Ordering::SeqCst) == 0).await;
}

/// Rust peers 4: an empty set never hangs: `UNAVAILABLE` at once, or a wait that was asked for.
async fn an_empty_set_fails_fast_or_waits_as_asked(over: Over) {
    let registry = memory();
    let channel = over.channel(registry.watch(&service()));
    channel.endpoints().wait_for(|set| set.error().is_some_and(|error| !error.is_not_yet())).await;
    let begun = Instant::now();
    let status = call(&channel, "").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no instance of book is registered"));
    let source = status.source().unwrap().downcast_ref::<PickError>().unwrap();
    assert!(matches!(source, PickError::Empty { .. }));

    let patient = over.builder(registry.watch(&service())).wait_for_ready(true).build();
    let mut request = ask("");
    request.set_timeout(Duration::from_millis(50));
    let status = HealthClient::new(patient.clone()).check(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("no instance of book is registered"), "{status}");
    let server = Server::start().await;
    let (answer, _registration) = tokio::join!(call(&patient, ""), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        registry.register(server.instance()).await.unwrap()
    });
    assert_eq!(answered_by(&answer.unwrap()), server.port);
}

/// The reason is in the message, and in the chain of sources, as far as the registry's own error.
async fn the_registrys_error_is_in_the_status(over: Over) {
    let (script, _registry, watch) = Script::open();
    let channel = over.builder(watch).timeout(Duration::from_millis(200)).build();
    script.fails("etcd is on holiday");
    let status = call(&channel, "").await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().ends_with("the registry has not been listed: etcd is on holiday"), "{status}");
    script.lists([]);
    script.fails("etcd is on holiday again");
    channel
        .endpoints()
        .wait_for(|set| {
            set.error().is_some_and(|error| matches!(error, PickError::Empty { source: Some(_), .. }))
        })
        .await;
    let status = call(&channel, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "no instance of book is registered: etcd is on holiday again");
    let registrys = status.source().unwrap().source().unwrap().downcast_ref::<callsign_core::Error>();
    assert_eq!(registrys.unwrap().to_string(), "etcd is on holiday again");
}

/// Every dial failed: at once, with the dials' errors.
async fn unreachable_says_what_was_refused(over: Over) {
    let mut server = Server::start().await;
    let _held = server.kill_for_good().await;
    let (script, _registry, watch) = Script::open();
    let channel = over.channel(watch);
    script.lists([server.port]);
    // The kernel may accept for a moment longer.
    let refused =
        |set: &callsign_lb::ReadySet<_>| set.error().is_some_and(|error| error.chain().contains("refused"));
    within(Duration::from_secs(5), "refused", channel.endpoints().wait_for(refused)).await;
    let begun = Instant::now();
    let status = call(&channel, "").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains(&format!("cannot connect to 127.0.0.1:{}", server.port)), "{status}");
    assert!(status.message().contains("refused"), "{status}");
    assert!(callsign_lb::is_never_sent(&status));
}

/// Instances that speak something else, or say that they are down, are not called.
async fn only_what_speaks_grpc_is_called(over: Over) {
    let servers = servers(3).await;
    let registry = memory();
    let channel = over.channel(registry.watch(&service()));
    let _registrations = [
        registry.register(servers[0].instance().with_protocol("http").unwrap()).await.unwrap(),
        registry.register(servers[1].instance().with_state(State::Down)).await.unwrap(),
        registry.register(servers[2].instance().with_protocol("grpc").unwrap()).await.unwrap(),
    ];
    ready(&channel, 1).await;
    for _ in 0..6 {
        assert_eq!(answered_by(&call(&channel, "").await.unwrap()), servers[2].port);
    }
    let all = over.builder(registry.watch(&service())).filter(|_| true).build();
    ready(&all, 2).await;
}

/// An error of the caller's own request stream stays what it is.
async fn the_callers_own_error_is_no_failure_of_the_transport(over: Over) {
    let (_servers, _script, channel) = scene(over, 1).await;
    let body = http_body_util::StreamBody::new(tokio_stream::once(Err::<http_body::Frame<bytes::Bytes>, _>(
        Status::invalid_argument("mine"),
    )));
    let request = http::Request::post("/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(body))
        .unwrap();
    let status = tower_service::Service::call(&mut channel.clone(), request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "mine"));
}

/// What gRPC says of an answer is what policies see of the instance.
async fn failures_are_counted_by_their_code(over: Over) {
    let (_servers, _script, channel) = scene(over, 1).await;
    let outcomes = || channel.endpoints().ready_set().slots()[0].stats().outcomes();
    let failing = [Code::Unavailable, Code::ResourceExhausted, Code::Internal, Code::Unknown, Code::DataLoss];
    for (failed, code) in (1..).zip(failing) {
        call(&channel, &format!("code:{}", code as i32)).await.unwrap_err();
        eventually("noted", || outcomes() == (failed, failed)).await;
    }
    for (answered, code) in
        (6..).zip([Code::NotFound, Code::InvalidArgument, Code::Unimplemented, Code::Aborted])
    {
        call(&channel, &format!("code:{}", code as i32)).await.unwrap_err();
        eventually("noted", || outcomes() == (5, answered)).await;
    }
    call(&channel, "").await.unwrap();
    eventually("noted", || outcomes() == (5, 10)).await;
    // The server's own cancel says nothing, nor does the caller's; a deadline that passes does.
    call(&channel, &format!("code:{}", Code::Cancelled as i32)).await.unwrap_err();
    let given_up = tokio::time::timeout(Duration::from_millis(50), call(&channel, "hang:"));
    assert!(given_up.await.is_err());
    let mut late = ask("hang:");
    late.set_timeout(Duration::from_millis(50));
    HealthClient::new(channel.clone()).check(late).await.unwrap_err();
    eventually("noted", || outcomes() == (6, 11)).await;
    assert_eq!(channel.endpoints().ready_set().slots()[0].stats().in_flight(), 0);
}

/// A key comes from the caller or from the metadata, in this order.
async fn calls_with_the_same_key_go_to_the_same_instance(over: Over) {
    let servers = servers(4).await;
    let (script, _registry, watch) = Script::open();
    let channel = over
        .builder(watch)
        .policy(Maglev::default())
        .key(|headers| headers.get("x-user").map(Key::new))
        .build();
    script.lists(servers.iter().map(|server| server.port));
    ready(&channel, 4).await;
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..40 {
        let user = format!("user-{user}");
        let mut by_header = ask("");
        by_header.metadata_mut().insert("x-user", user.parse().unwrap());
        let mut by_caller = ask("");
        by_caller.metadata_mut().insert("x-user", "somebody else".parse().unwrap());
        by_caller.extensions_mut().insert(Key::new(&user));
        let first = answered_by(&HealthClient::new(channel.clone()).check(by_header).await.unwrap());
        let second = answered_by(&HealthClient::new(channel.clone()).check(by_caller).await.unwrap());
        assert_eq!(first, second);
        seen.insert(first);
    }
    assert_eq!(seen.len(), 4);
}

over_both! {
    #[tokio::test]
    by_default_the_slow_and_the_failing_get_few_calls,
    a_hundred_calls_over_four,
    interceptors_work_as_with_tonics_own,
    the_servers_status_is_its_own,
    deadlines_end_as_deadlines,
    the_deadline_travels,
    the_deadline_covers_the_body,
    the_deadline_ends_a_flood,
    without_tls_nothing_is_sent_that_was_to_be_secret,
    a_stream_is_in_flight_until_its_end,
    an_empty_set_fails_fast_or_waits_as_asked,
    the_registrys_error_is_in_the_status,
    unreachable_says_what_was_refused,
    only_what_speaks_grpc_is_called,
    the_callers_own_error_is_no_failure_of_the_transport,
    failures_are_counted_by_their_code,
    calls_with_the_same_key_go_to_the_same_instance,
}
