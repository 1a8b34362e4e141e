//! Real gRPC servers in this process, each on a runtime of its own, so that one can be killed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use callsign_core::{Instance, InstanceWatch};
use callsign_lb::grpc::{Channel, ChannelBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::within;

/// By which transport a channel connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Native,
    Endpoint,
}

impl Over {
    pub(crate) fn builder(self, watch: InstanceWatch) -> ChannelBuilder {
        match self {
            Self::Native => Channel::builder(watch),
            Self::Endpoint => Channel::builder(watch).endpoint(|_, endpoint| endpoint),
        }
    }

    pub(crate) fn channel(self, watch: InstanceWatch) -> Channel {
        self.builder(watch).build()
    }
}

/// Tests of functions that take an `Over`, over each transport.
macro_rules! over_both {
    (# $attribute:tt $($name:ident,)*) => {
        mod native {
            $(# $attribute async fn $name() {
                super::$name(super::Over::Native).await;
            })*
        }

        mod by_endpoint {
            $(# $attribute async fn $name() {
                super::$name(super::Over::Endpoint).await;
            })*
        }
    };
}

/// Does what the name of the service that it is asked about says.
#[derive(Debug, Default)]
pub(crate) struct Acts {
    pub(crate) calls: AtomicU64,
    /// Calls that have begun and neither ended nor been cancelled.
    pub(crate) running: Arc<AtomicU64>,
    /// How long each answer is kept back, in milliseconds.
    pub(crate) delay: AtomicU64,
    /// Whether each call fails with `UNAVAILABLE`.
    pub(crate) fails: AtomicBool,
}

/// Counts itself.
pub(crate) struct Running(Arc<AtomicU64>);

impl Running {
    pub(crate) fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: 1 }
}

#[tonic::async_trait]
impl Health for Acts {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let _running = Running::new(&self.running);
        match self.delay.load(Ordering::SeqCst) {
            0 => {}
            millis => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
        if self.fails.load(Ordering::SeqCst) {
            return Err(Status::unavailable("as asked"));
        }
        let metadata = request.metadata().clone();
        match request.into_inner().service.split_once(':').unwrap_or_default() {
            ("sleep", millis) => tokio::time::sleep(Duration::from_millis(millis.parse().unwrap())).await,
            ("hang", _) => std::future::pending().await,
            ("code", code) => return Err(Status::new(code.parse::<i32>().unwrap().into(), "as asked")),
            ("echo", key) => {
                let value = metadata.get(key).map_or("none", |value| value.to_str().unwrap());
                return Err(Status::already_exists(value));
            }
            _ => {}
        }
        Ok(Response::new(serving()))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// As many messages as the service says, then nothing more for ever; or the end, with `end:`; or more without end,
    /// with `flood:`.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let running = Running::new(&self.running);
        let service = request.into_inner().service;
        let (how, count) = service.split_once(':').unwrap_or_default();
        let messages = tokio_stream::iter(vec![Ok(serving()); count.parse().unwrap()]);
        let messages: Self::WatchStream = match how {
            "end" => Box::pin(messages),
            "flood" => Box::pin(messages.chain(tokio_stream::iter(std::iter::repeat_with(|| Ok(serving()))))),
            _ => Box::pin(messages.chain(tokio_stream::pending())),
        };
        let kept = messages.map(move |message| {
            let _ = &running;
            message
        });
        Ok(Response::new(Box::pin(kept)))
    }
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) acts: Arc<Acts>,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    stopped: Option<oneshot::Receiver<()>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_on(0).await
    }

    pub(crate) async fn start_on(port: u16) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let acts = Arc::new(Acts::default());
        let (bound, port_bound) = oneshot::channel();
        let (stop, stopping) = oneshot::channel::<()>();
        let (ended, stopped) = oneshot::channel();
        let service = HealthServer::from_arc(Arc::clone(&acts));
        runtime.handle().spawn(async move {
            let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
            bound.send(listener.local_addr().unwrap().port()).unwrap();
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                    let _ = stopping.await;
                })
                .await
                .unwrap();
            let _ = ended.send(());
        });
        let port = within(Duration::from_secs(5), "bound", port_bound).await.unwrap();
        Self { port, acts, runtime: Some(runtime), stop: Some(stop), stopped: Some(stopped) }
    }

    pub(crate) fn instance(&self) -> Instance {
        super::book(self.port)
    }

    /// Ends it as a crash does: every socket is closed at once.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// The same for good: nobody else is given its port, in some other test, for as long as the socket is held.
    pub(crate) async fn kill_for_good(&mut self) -> TcpSocket {
        self.kill();
        let mut held = None;
        super::eventually("the port is free", || {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            held = socket.bind(([127, 0, 0, 1], self.port).into()).is_ok().then_some(socket);
            held.is_some()
        })
        .await;
        held.unwrap()
    }

    /// Asks it to end: it says GOAWAY, and finishes what it has.
    pub(crate) fn ask_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Ends it as a server does that was asked to.
    pub(crate) async fn stop(&mut self) {
        self.ask_to_stop();
        within(Duration::from_secs(10), "stopped", self.stopped.take().unwrap()).await.unwrap();
        self.kill();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) async fn servers(count: usize) -> Vec<Server> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::start().await);
    }
    servers
}

/// Waits until that many connections of a channel are ready.
pub(crate) async fn ready(channel: &Channel, count: usize) {
    let what = format!("{count} ready");
    within(Duration::from_secs(10), &what, channel.endpoints().wait_for(|set| set.len() == count)).await;
}

/// Makes a call that asks for `what`.
pub(crate) async fn call(channel: &Channel, what: &str) -> Result<Response<HealthCheckResponse>, Status> {
    HealthClient::new(channel.clone()).check(ask(what)).await
}

pub(crate) fn ask(what: &str) -> Request<HealthCheckRequest> {
    Request::new(HealthCheckRequest { service: what.into() })
}

pub(crate) fn answered_by<T>(response: &Response<T>) -> u16 {
    response.extensions().get::<Arc<Instance>>().expect("the instance that answered").address().port()
}

/// What a [`Greeter`] makes of calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Silent,
    /// Answers the first call on each connection with GOAWAY, and says that it looked at none.
    Dismissive,
    /// Refuses each call.
    Refusing,
}

/// The least of a server: it greets each connection with SETTINGS, reads, and tells when one has ended.
pub(crate) struct Greeter {
    pub(crate) port: u16,
    pub(crate) open: Arc<AtomicU64>,
    pub(crate) accepted: Arc<AtomicU64>,
    /// How many calls were dismissed or refused.
    pub(crate) dismissed: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<()>,
}

/// No payload, for connection 0: the length, the type, the flags, the stream.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Last stream looked at: 0. No error.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Of stream 0, which is to be replaced: `REFUSED_STREAM`.
const RST_STREAM: [u8; 13] = [0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const PREFACE: usize = 24;
const HEADERS: u8 = 1;

impl Greeter {
    pub(crate) async fn start() -> Self {
        Self::serve(Manner::Silent).await
    }

    pub(crate) async fn dismissive() -> Self {
        Self::serve(Manner::Dismissive).await
    }

    pub(crate) async fn refusing() -> Self {
        Self::serve(Manner::Refusing).await
    }

    async fn serve(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts: [Arc<AtomicU64>; 3] = Default::default();
        let [open, accepted, dismissed] = counts.clone();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let running = Running::new(&counts[0]);
                counts[1].fetch_add(1, Ordering::SeqCst);
                let dismissed = Arc::clone(&counts[2]);
                connections.spawn(async move {
                    let _running = running;
                    socket.write_all(&SETTINGS).await.unwrap();
                    if manner != Manner::Silent {
                        let _ = socket.read_exact(&mut [0; PREFACE]).await;
                        while let Ok(stream) = called(&mut socket).await {
                            dismissed.fetch_add(1, Ordering::SeqCst);
                            if manner == Manner::Dismissive {
                                let _ = socket.write_all(&GOAWAY).await;
                                break;
                            }
                            let mut refusal = RST_STREAM;
                            refusal[5..9].copy_from_slice(&stream);
                            let _ = socket.write_all(&refusal).await;
                        }
                    }
                    let mut bytes = [0; 1024];
                    while socket.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                });
            }
        });
        Self { port, open, accepted, dismissed, tasks }
    }

    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }
}

/// Reads up to the HEADERS of a call, and returns its stream.
async fn called(socket: &mut tokio::net::TcpStream) -> std::io::Result<[u8; 4]> {
    loop {
        let mut header = [0; 9];
        socket.read_exact(&mut header).await?;
        let [a, b, c, kind, _, stream @ ..] = header;
        socket.read_exact(&mut vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)]).await?;
        if kind == HEADERS {
            return Ok(stream);
        }
    }
}
