//! The channel before real servers, processes of their own, of which one fails, stops, or all are replaced.
//!
//! By way of a directory, which lists one that stands for as long as it lives: nobody but the balancer can tell.

// Helpers of tests report by panicking, as tests do.
#![cfg(all(unix, feature = "grpc"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use callsign::grpc::Channel;
use callsign::{Instance, Registry, file};
use callsign_testkit::conformance::full;
use callsign_testkit::load::{Load, most_frequent};
use callsign_testkit::process::Program;
use callsign_testkit::wait::eventually;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tonic::codegen::BoxStream;
use tonic::codegen::tokio_stream::{self, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const URL: &str = "CALLSIGN_BALANCE_URL";
/// Set for a server that answers every call with an error.
const FAILS: &str = "CALLSIGN_BALANCE_FAILS";
const SOON: Duration = Duration::from_secs(20);
/// One call in so much time.
const EVERY: Duration = Duration::from_millis(2);
/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stream goes on, in steps of [`STEP`].
const STEPS: usize = 10;
const STEP: Duration = Duration::from_millis(10);

/// What the servers serve: unary calls that are answered at once, and streams that take a tenth of a second.
struct Serves {
    fails: bool,
}

#[tonic::async_trait]
impl Health for Serves {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if self.fails {
            return Err(Status::unavailable("it fails at once"));
        }
        Ok(Response::new(HealthCheckResponse { status: 1 }))
    }

    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let steps = tokio_stream::iter(0..STEPS).then(|_| async {
            sleep(STEP).await;
            Ok(HealthCheckResponse { status: 1 })
        });
        Ok(Response::new(Box::pin(steps)))
    }
}

/// Not a test: what the process of a server runs. It leaves in two phases when it is asked to end.
#[tokio::test]
#[ignore = "the body of a process that other tests start"]
async fn serve() {
    let Ok(url) = std::env::var(URL) else { return };
    let mut asked = signal(SignalKind::terminate()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let registry = callsign::open(&url).unwrap();
    let serves = HealthServer::new(Serves { fails: std::env::var_os(FAILS).is_some() });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = Server::builder().add_service(serves).serve_with_incoming_shutdown(
        TcpIncoming::from(listener),
        async move {
            // An error: nobody will ask any more.
            let _ = stopped.await;
        },
    );
    let registering = async {
        let registration = registry.register(Instance::new("book", addr).unwrap()).await.unwrap();
        println!("\nregistered as {addr}");
        asked.recv().await;
        registration.deregister().await.unwrap();
        stop.send(()).unwrap();
    };
    let (served, ()) = tokio::join!(serving, registering);
    served.unwrap();
}

/// A server, and the address that it is registered by.
async fn server(url: &str, fails: bool) -> (Program, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "serve", "--ignored", "--nocapture"]).env(URL, url);
    command.envs(fails.then_some((FAILS, "1")));
    let mut program = Program::spawn(&mut command).unwrap();
    let addr = program.said("registered as ", SOON).await;
    (program, addr)
}

/// Some servers and a channel that is connected to all of them.
struct Scene {
    _folder: TempDir,
    url: String,
    servers: Vec<(Program, String)>,
    _registry: Registry,
    channel: Channel,
}

impl Scene {
    async fn set(servers: usize, failing: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("{}?drain=300ms", file::url(folder.path()));
        let mut started = Vec::new();
        for n in 0..servers {
            started.push(server(&url, n < failing).await);
        }
        let registry = callsign::open(&url).unwrap();
        let channel = Channel::builder(registry.watch(&"book".parse().unwrap())).timeout(TIMEOUT).build();
        let all = async || channel.endpoints().ready_set().len() == servers;
        eventually(SOON, "all are connected", all).await;
        Self { _folder: folder, url, servers: started, _registry: registry, channel }
    }
}

/// A call that has ended.
#[derive(Debug)]
struct Ended {
    begun: Instant,
    streams: bool,
    /// Who answered, if it was a unary call that was answered.
    by: Option<String>,
    failed: Option<Status>,
}

/// Calls through a channel, of which one of `streaming` is a stream; none if that is 0.
fn load(channel: &Channel, streaming: usize) -> Load<Ended> {
    let channel = channel.clone();
    let streams = move |number: usize| number.checked_rem(streaming) == Some(0);
    Load::start(EVERY, move |number| call(channel.clone(), streams(number)))
}

async fn call(channel: Channel, streams: bool) -> Ended {
    let (mut client, begun) = (HealthClient::new(channel), Instant::now());
    let request = HealthCheckRequest::default();
    let answer = if streams {
        let whole = async {
            let mut stream = client.watch(request).await?.into_inner();
            let mut steps = 0;
            while stream.message().await?.is_some() {
                steps += 1;
            }
            if steps == STEPS { Ok(None) } else { Err(Status::data_loss(format!("{steps} steps"))) }
        };
        whole.await
    } else {
        let by = |answer: Response<_>| {
            let by = answer.extensions().get::<Arc<Instance>>();
            by.map(|instance| instance.address().to_string())
        };
        client.check(request).await.map(by)
    };
    match answer {
        Ok(by) => Ended { begun, streams, by, failed: None },
        Err(status) => Ended { begun, streams, by: None, failed: Some(status) },
    }
}

/// One of ten fails at once: it gets less than one call in a hundred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_ten_that_fails_at_once_gets_next_to_nothing() {
    let scene = Scene::set(10, 1).await;
    let calls = load(&scene.channel, 0);
    sleep(Duration::from_secs(8)).await;
    let ended = calls.finish().await;
    let failed = ended.iter().filter(|call| call.failed.is_some()).count();
    println!("measured: {failed} of {} calls failed", ended.len());
    assert!(ended.len() > 1000, "{} calls", ended.len());
    assert!(failed * 100 < ended.len(), "{failed} of {} calls failed", ended.len());
    let mut shares = HashMap::<_, usize>::new();
    for by in ended.iter().filter_map(|call| call.by.as_ref()) {
        *shares.entry(by).or_default() += 1;
    }
    assert_eq!(shares.len(), 9, "all others are called: {shares:?}");
}

/// The server that most calls go to at this moment.
async fn busiest(scene: &Scene) -> &Program {
    let mut answered = Vec::new();
    for _ in 0..20 {
        answered.push(call(scene.channel.clone(), false).await.by.unwrap());
    }
    let most = most_frequent(answered).unwrap();
    scene.servers.iter().find_map(|(server, at)| (*at == most).then_some(server)).unwrap()
}

/// One stands that calls go to: those fail that are on it, and none that begins later than 3 s after. Of one that has been
/// slow, and is called once in many seconds, it is known only then that it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stands_fails_only_what_it_has() {
    let scene = Scene::set(4, 0).await;
    let calls = load(&scene.channel, 0);
    sleep(Duration::from_secs(2)).await;
    let stands = busiest(&scene).await;
    stands.process.pause().unwrap();
    let paused = Instant::now();
    sleep(Duration::from_secs(if full() { 60 } else { 15 })).await;
    stands.process.resume().unwrap();
    sleep(Duration::from_secs(2)).await;
    let ended = calls.finish().await;
    let failed: Vec<_> = ended.iter().filter(|call| call.failed.is_some()).collect();
    println!("measured: {} of {} calls failed", failed.len(), ended.len());
    for call in &failed {
        let code = call.failed.as_ref().map(Status::code);
        println!(
            "measured: one that began after {:.1?}: {code:?}",
            call.begun.saturating_duration_since(paused)
        );
    }
    let late: Vec<_> = failed.iter().filter(|call| call.begun > paused + Duration::from_secs(3)).collect();
    assert!(late.is_empty(), "{} begun later than 3 s after: {:?}", late.len(), late.first());
    // Of 500 a second; whoever minds nothing would send it 125 of them.
    assert!(failed.len() <= 25, "{} failed: {:?}", failed.len(), failed.first());
}

/// Four servers are replaced one after the other, over and over, under 500 calls a second, of which every tenth is a
/// stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_fail_no_call() {
    let mut scene = Scene::set(4, 0).await;
    let calls = load(&scene.channel, 10);
    let rounds = if full() { 100 } else { 10 };
    for round in 0..rounds {
        for _ in 0..4 {
            let new = server(&scene.url, false).await;
            scene.servers.push(new);
            let (mut old, addr) = scene.servers.remove(0);
            let status = old.process.stop(SOON).await.unwrap();
            assert!(status.success(), "round {round}, {addr}: {status}");
        }
    }
    let ended = calls.finish().await;
    let failed: Vec<_> = ended.iter().filter(|call| call.failed.is_some()).collect();
    let streams = ended.iter().filter(|call| call.streams).count();
    println!("measured: {} of {} calls failed, {streams} of them streams", failed.len(), ended.len());
    assert!(
        streams > rounds && failed.is_empty(),
        "{} of {} failed: {:?}",
        failed.len(),
        ended.len(),
        failed.first()
    );
}
