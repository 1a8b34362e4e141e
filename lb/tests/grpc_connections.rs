//! Connections of `grpc::Channel` to servers that come, go and fail. `Rust peers N` are the traps of PEERS.md,
//! by their numbers.

#![cfg(feature = "grpc")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy sees no test in what a macro makes one of"
)]

#[macro_use]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use callsign_core::Instance;
use callsign_lb::grpc::{Channel, ChannelBuilder, Http2};
use callsign_lb::{Balancer, Endpointer, Retry, RoundRobin};
use support::grpc::{Greeter, Over, Server, answered_by, ask, call, ready, servers};
use support::{Script, eventually, memory, service};
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;

/// Redials soon, so that tests need not wait.
fn quick(builder: ChannelBuilder) -> Channel {
    builder.backoff(Duration::from_millis(20), Duration::from_millis(100)).build()
}

/// Calls without a pause from several tasks, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<Vec<Status>>,
}

impl Load {
    fn start(channel: &Channel, what: &'static str) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (stop, done, channel) = (Arc::clone(&stop), Arc::clone(&done), channel.clone());
            tasks.spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    match call(&channel, what).await {
                        Ok(_) => drop(done.fetch_add(1, Ordering::SeqCst)),
                        Err(status) => failed.push(status),
                    }
                }
                failed
            });
        }
        Self { stop, done, tasks }
    }

    /// Waits for so many more calls.
    async fn more(&self, calls: u64) {
        let until = self.done.load(Ordering::SeqCst) + calls;
        eventually("calls go on", || self.done.load(Ordering::SeqCst) >= until).await;
    }

    /// Stops, and returns what failed.
    async fn end(mut self) -> Vec<Status> {
        self.stop.store(true, Ordering::SeqCst);
        let mut failed = Vec::new();
        while let Some(task) = self.tasks.join_next().await {
            failed.extend(task.expect("no call panics"));
        }
        failed
    }
}

/// Rust peers 1: one dead and three live: no call fails, and the dead one is dialled at a bounded rate.
async fn one_dead_and_three_live(over: Over) {
    let mut servers = servers(4).await;
    let _held = servers[3].kill_for_good().await;
    let (script, _registry, watch) = Script::open();
    let channel = over.channel(watch);
    script.lists(servers.iter().map(|server| server.port));
    let mut counts = BTreeMap::<u16, u32>::new();
    for _ in 0..300 {
        let answer = call(&channel, "").await.expect("no call goes to the dead one");
        *counts.entry(answered_by(&answer)).or_default() += 1;
    }
    assert_eq!(counts.len(), 3, "{counts:?}");
    // One more dies under load: what it had in flight fails, and nothing after that.
    let load = Load::start(&channel, "sleep:1");
    load.more(200).await;
    let _held = servers[2].kill_for_good().await;
    ready(&channel, 2).await;
    load.more(200).await;
    let failed = load.end().await;
    assert!(failed.len() <= 4, "at most the calls in flight: {failed:?}");
    assert!(failed.iter().all(|status| status.code() == Code::Unavailable), "{failed:?}");
    let load = Load::start(&channel, "");
    load.more(500).await;
    assert!(load.end().await.is_empty());
}

/// Rust peers 2, 7; interop `backends_restart`: a server that restarts at its address comes back by itself,
/// and brings no old error along.
async fn a_restarted_server_comes_back(over: Over) {
    let mut server = Server::start().await;
    let (script, _registry, watch) = Script::open();
    let channel = quick(over.builder(watch));
    script.lists([server.port]);
    ready(&channel, 1).await;
    for _ in 0..5 {
        let port = server.port;
        server.kill();
        ready(&channel, 0).await;
        // Stale dials for a while.
        tokio::time::sleep(Duration::from_millis(50)).await;
        server = Server::start_on(port).await;
        ready(&channel, 1).await;
        for _ in 0..10 {
            call(&channel, "").await.expect("ready is ready");
        }
    }
}

/// A listener that accepts and never speaks is not ready: it is never picked, and costs the others nothing.
async fn who_never_speaks_is_not_picked(over: Over) {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let server = Server::start().await;
    let (script, _registry, watch) = Script::open();
    let channel = over.builder(watch).connect_timeout(Duration::from_millis(100)).build();
    script.lists([port, server.port]);
    for _ in 0..20 {
        assert_eq!(answered_by(&call(&channel, "").await.unwrap()), server.port);
    }
    script.lists([port]);
    ready(&channel, 0).await;
    let status = call(&channel, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("no connection within 100ms"), "{status}");
}

/// So is one that speaks something else.
async fn who_speaks_no_http2_is_not_picked(over: Over) {
    let (script, _registry, watch) = Script::open();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    script.lists([listener.local_addr().unwrap().port()]);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let channel = quick(over.builder(watch));
    let status = call(&channel, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("without speaking HTTP/2"), "{status}");
}

/// FAULTS.md, row 7; interop `remove_instance_group`: leaving in two phases fails no call.
async fn leaving_in_two_phases_fails_nothing(over: Over) {
    let mut servers = servers(3).await;
    let registry = memory();
    let channel = over.channel(registry.watch(&service()));
    let mut registrations = Vec::new();
    for server in &servers {
        registrations.push(registry.register(server.instance()).await.unwrap());
    }
    ready(&channel, 3).await;
    let load = Load::start(&channel, "sleep:1");
    load.more(100).await;
    for left in [2, 1] {
        let leaving = registrations.pop().unwrap();
        leaving.drain().await.unwrap();
        ready(&channel, left).await;
        leaving.deregister_within(Duration::from_millis(200)).await.unwrap();
        servers.pop().unwrap().stop().await;
        load.more(100).await;
    }
    let failed = load.end().await;
    assert!(failed.is_empty(), "{failed:?}");
}

/// Rust peers 3: servers that stop gracefully and come back, one after the other, without telling the
/// registry: GOAWAY is enough, and no call fails.
async fn goaway_fails_no_call(over: Over) {
    let mut servers = servers(3).await;
    let (script, _registry, watch) = Script::open();
    let channel = quick(over.builder(watch));
    script.lists(servers.iter().map(|server| server.port));
    ready(&channel, 3).await;
    let load = Load::start(&channel, "sleep:1");
    for round in 0..12 {
        load.more(50).await;
        let server = &mut servers[round % 3];
        let port = server.port;
        server.stop().await;
        *server = Server::start_on(port).await;
        ready(&channel, 3).await;
    }
    let failed = load.end().await;
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
}

/// Rust peers 3, with a stream open: the connection is left at GOAWAY, not at its end, and the stream goes on.
async fn goaway_is_left_with_a_stream_open(over: Over) {
    let mut server = Server::start().await;
    let (script, _registry, watch) = Script::open();
    let channel = over.channel(watch);
    script.lists([server.port]);
    ready(&channel, 1).await;
    let mut stream = HealthClient::new(channel.clone()).watch(ask("open:2")).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    server.ask_to_stop();
    ready(&channel, 0).await;
    let other = Server::start().await;
    script.lists([server.port, other.port]);
    ready(&channel, 1).await;
    assert_eq!(answered_by(&call(&channel, "").await.unwrap()), other.port);
    assert!(stream.message().await.unwrap().is_some(), "the stream goes on");
    assert_eq!(server.acts.running.load(Ordering::SeqCst), 1);
}

/// Rust peers 3, the race: a call that crosses with GOAWAY was looked at by nobody, and goes to another
/// instance; with none there, the error says that it is safe to repeat.
async fn a_call_that_crosses_with_goaway_goes_elsewhere(over: Over) {
    let (dismissive, server) = (Greeter::dismissive().await, Server::start().await);
    let (script, _registry, watch) = Script::open();
    let channel = quick(over.builder(watch).policy(RoundRobin::default()));
    script.lists([dismissive.port, server.port]);
    ready(&channel, 2).await;
    let dismissed = || dismissive.dismissed.load(Ordering::SeqCst);
    while dismissed() < 5 {
        assert_eq!(answered_by(&call(&channel, "").await.unwrap()), server.port);
    }
    script.lists([dismissive.port]);
    channel
        .endpoints()
        .wait_for(|set| set.slots().iter().all(|slot| slot.instance().address().port() == dismissive.port))
        .await;
    let status = call(&channel, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(callsign_lb::is_never_sent(&status), "{status:?}");
}

/// A server that refuses streams, as one does that is overloaded, is not asked many times over.
async fn a_refused_call_is_sent_elsewhere_once(over: Over) {
    let refusing = [Greeter::refusing().await, Greeter::refusing().await, Greeter::refusing().await];
    let (script, _registry, watch) = Script::open();
    let channel = quick(over.builder(watch));
    let refused = || refusing.iter().map(|server| server.dismissed.load(Ordering::SeqCst)).sum::<u64>();
    for some in [1, 3] {
        script.lists(refusing[..some].iter().map(|server| server.port));
        ready(&channel, some).await;
        let before = refused();
        let status = call(&channel, "").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(callsign_lb::is_never_sent(&status), "{status:?}");
        assert_eq!(refused() - before, 2, "with {some} of them");
    }
    // It stays connected: it has not gone away.
    assert_eq!(refusing.iter().map(Greeter::open).sum::<u64>(), 3);
    let server = Server::start().await;
    script.lists([refusing[0].port, server.port]);
    ready(&channel, 2).await;
    for _ in 0..10 {
        assert_eq!(answered_by(&call(&channel, "").await.unwrap()), server.port);
    }
}

/// Rust peers 8; interop: an idle channel applies updates. What leaves is closed without any traffic, although
/// an idle handle remembers the old set, and is dialled no more.
async fn an_idle_channel_applies_updates(over: Over) {
    let (one, two) = (Greeter::start().await, Greeter::start().await);
    let (script, _registry, watch) = Script::open();
    let channel = over.channel(watch);
    let idle = channel.clone();
    script.lists([one.port]);
    ready(&channel, 1).await;
    assert_eq!((one.open(), two.open()), (1, 0));
    script.lists([two.port]);
    eventually("one closed, two open", || (one.open(), two.open()) == (0, 1)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(one.accepted.load(Ordering::SeqCst), 1, "dialled no more");
    drop(idle);
}

/// Dropping the last clone closes every socket and ends every task.
async fn dropping_the_channel_leaves_nothing_behind(over: Over) {
    let greeter = Greeter::start().await;
    let (script, registry, watch) = Script::open();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    script.lists([greeter.port]);
    let mut settled = watch.clone();
    settled.ready().await.unwrap();
    let before = tasks();
    for _ in 0..20 {
        let channel = over.channel(watch.clone());
        ready(&channel, 1).await;
        let clone = channel.clone();
        drop(channel);
        assert_eq!(greeter.open(), 1);
        drop(clone);
        eventually("closed", || greeter.open() == 0).await;
    }
    eventually("all tasks ended", || tasks() == before).await;
    drop(registry);
}

/// What leaves finishes what it has: a stream goes on until it ends, then its socket is closed.
async fn what_leaves_finishes_its_streams(over: Over) {
    let servers = servers(2).await;
    let (script, _registry, watch) = Script::open();
    let channel = over.channel(watch);
    script.lists([servers[0].port]);
    ready(&channel, 1).await;
    let mut stream = HealthClient::new(channel.clone()).watch(ask("end:500")).await.unwrap().into_inner();
    script.lists([servers[1].port]);
    let only_second = |set: &callsign_lb::ReadySet<_>| {
        set.slots().iter().map(|slot| slot.instance().address().port()).eq([servers[1].port])
    };
    channel.endpoints().wait_for(only_second).await;
    assert_eq!(answered_by(&call(&channel, "").await.unwrap()), servers[1].port);
    let mut messages = 0;
    while stream.message().await.unwrap().is_some() {
        messages += 1;
    }
    assert_eq!(messages, 500);
    // Also when the channel itself is gone.
    let mut stream = HealthClient::new(channel.clone()).watch(ask("end:500")).await.unwrap().into_inner();
    drop(channel);
    for _ in 0..500 {
        assert!(stream.message().await.unwrap().is_some());
    }
}

/// A connection that dies in the middle of a stream is `UNAVAILABLE`, not `UNKNOWN`.
async fn a_broken_stream_is_unavailable(over: Over) {
    let mut server = Server::start().await;
    let (script, _registry, watch) = Script::open();
    let channel = over.channel(watch);
    script.lists([server.port]);
    ready(&channel, 1).await;
    let mut stream = HealthClient::new(channel.clone()).watch(ask("open:1")).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let hanging = call(&channel, "hang:");
    let (unary, broken) = tokio::join!(hanging, async {
        eventually("both run", || server.acts.running.load(Ordering::SeqCst) == 2).await;
        server.kill();
        stream.message().await
    });
    let (unary, broken) = (unary.unwrap_err(), broken.unwrap_err());
    assert_eq!(unary.code(), Code::Unavailable, "{unary}");
    assert_eq!(broken.code(), Code::Unavailable, "{broken}");
    assert!(broken.message().contains(&server.port.to_string()), "{broken}");
    assert!(!callsign_lb::is_never_sent(&unary), "it may have been carried out");
}

/// Rust peers 6: one that fails at once gets no more than its share.
async fn failing_fast_attracts_no_traffic(over: Over) {
    let servers = servers(4).await;
    let (script, _registry, watch) = Script::open();
    let channel = over.builder(watch).policy(RoundRobin::default()).without_ejection().build();
    script.lists(servers.iter().map(|server| server.port));
    ready(&channel, 4).await;
    for n in 0..100 {
        let _ = call(&channel, if n % 4 == 0 { "code:13" } else { "" }).await;
    }
    let seen: Vec<_> = servers.iter().map(|server| server.acts.calls.load(Ordering::SeqCst)).collect();
    assert_eq!(seen, [25; 4]);
}

/// Go kit's own chain with tonic's clients as endpoints.
#[tokio::test]
async fn tonics_own_channels_as_endpoints() {
    async fn connect(
        instance: Arc<Instance>,
    ) -> Result<HealthClient<tonic::transport::Channel>, tonic::transport::Error> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", instance.address()))?;
        Ok(HealthClient::new(endpoint.connect().await?))
    }
    let servers = servers(2).await;
    let (script, _registry, watch) = Script::open();
    let endpoints = Endpointer::new(watch, connect);
    script.lists(servers.iter().map(|server| server.port));
    endpoints.wait_for(|set| set.len() == 2).await;
    let retry =
        Retry::new(Balancer::new(endpoints, RoundRobin::default())).max(3).timeout(Duration::from_secs(3));
    let begun = Instant::now();
    for _ in 0..10 {
        retry.call(|health| async move { health.clone().check(ask("")).await }).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(3));
    let seen: Vec<_> = servers.iter().map(|server| server.acts.calls.load(Ordering::SeqCst)).collect();
    assert_eq!(seen, [5; 2]);
}

/// Rust peers 19: keepalive is an option, of both transports, and a peer that does not answer leaves within interval
/// and timeout.
async fn keepalive_by_option(over: Over) {
    let greeter = Greeter::start().await;
    let (script, _registry, watch) = Script::open();
    let pause = Duration::from_millis(50);
    let builder = match over {
        Over::Native => Channel::builder(watch).http2(Http2::new().keepalive(pause, pause)),
        Over::Endpoint => Channel::builder(watch).endpoint(move |_, endpoint| {
            endpoint.http2_keep_alive_interval(pause).keep_alive_timeout(pause).keep_alive_while_idle(true)
        }),
    };
    let channel = quick(builder);
    script.lists([greeter.port]);
    eventually("dialled anew", || greeter.accepted.load(Ordering::SeqCst) >= 3).await;
    eventually("closed", || greeter.open() <= 1).await;
    drop(channel);
}

over_both! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    a_restarted_server_comes_back,
    who_never_speaks_is_not_picked,
    who_speaks_no_http2_is_not_picked,
    goaway_is_left_with_a_stream_open,
    a_call_that_crosses_with_goaway_goes_elsewhere,
    a_refused_call_is_sent_elsewhere_once,
    an_idle_channel_applies_updates,
    dropping_the_channel_leaves_nothing_behind,
    what_leaves_finishes_its_streams,
    a_broken_stream_is_unavailable,
    failing_fast_attracts_no_traffic,
    keepalive_by_option,
    one_dead_and_three_live,
    leaving_in_two_phases_fails_nothing,
    goaway_fails_no_call,
}
