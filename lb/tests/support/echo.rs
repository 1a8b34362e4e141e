//! A gRPC server that answers with what it is sent, over whatever carries its bytes.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::NamedService;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use super::grpc::Running;

/// What it has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: Arc<AtomicU64>,
    /// Calls that wait for ever.
    pub(crate) running: Arc<AtomicU64>,
    /// The most of them at the same time.
    pub(crate) most: AtomicU64,
    pub(crate) compressed: AtomicU64,
}

pub(crate) struct Echo {
    pub(crate) seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

impl Echo {
    /// On TCP, with at most so many calls at the same time on each connection.
    pub(crate) async fn start(streams: Option<u32>) -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        (Self::over(TcpListenerStream::new(listener), streams), at)
    }

    pub(crate) fn over<I>(
        incoming: impl Stream<Item = std::io::Result<I>> + Send + 'static,
        streams: Option<u32>,
    ) -> Self
    where
        I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let seen = Arc::<Seen>::default();
        let connections = Arc::clone(&seen);
        let incoming = incoming.map(move |io| {
            connections.connections.fetch_add(1, Ordering::SeqCst);
            io
        });
        let service = Service(Arc::clone(&seen));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let server = tonic::transport::Server::builder().max_concurrent_streams(streams);
            server.clone().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { seen, _tasks: tasks }
    }
}

#[derive(Clone)]
struct Service(Arc<Seen>);

impl NamedService for Service {
    const NAME: &'static str = "test.Echo";
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl tower_service::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let seen = Arc::clone(&self.0);
        Box::pin(async move {
            if request.headers().contains_key("grpc-encoding") {
                seen.compressed.fetch_add(1, Ordering::SeqCst);
            }
            let text = |text: Option<&str>| HeaderValue::from_str(text.unwrap_or("none")).unwrap();
            let authority = text(request.uri().authority().map(http::uri::Authority::as_str));
            let scheme = text(request.uri().scheme_str());
            let agent = request.headers().get("user-agent").cloned();
            let mut grpc = tonic::server::Grpc::new(Raw)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(usize::MAX);
            let mut answer = grpc.unary(Unary(seen), request).await;
            let headers = answer.headers_mut();
            headers.insert("x-authority", authority);
            headers.insert("x-scheme", scheme);
            headers.insert("x-agent", agent.unwrap_or(HeaderValue::from_static("none")));
            Ok(answer)
        })
    }
}

struct Unary(Arc<Seen>);

impl tonic::server::UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    /// Waits for ever if it is asked to `hang`, and fails with what it is asked to `fail` with.
    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let seen = Arc::clone(&self.0);
        Box::pin(async move {
            let sent = request.into_inner();
            if &sent[..] == b"hang" {
                let _running = Running::new(&seen.running);
                seen.most.fetch_max(seen.running.load(Ordering::SeqCst), Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            if &sent[..] == b"fail" {
                return Err(Status::failed_precondition("as asked"));
            }
            Ok(Response::new(sent))
        })
    }
}

/// Asks for an echo.
pub(crate) async fn echo<T>(channel: T, what: impl Into<Bytes>) -> Result<Response<Bytes>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    ask(&mut Grpc::new(channel), what).await
}

/// The same by a client with settings of its own.
pub(crate) async fn ask<T>(client: &mut Grpc<T>, what: impl Into<Bytes>) -> Result<Response<Bytes>, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    client.ready().await.map_err(|error| Status::unknown(error.into().to_string()))?;
    client.unary(Request::new(what.into()), "/test.Echo/Echo".parse().unwrap(), Raw).await
}

/// Messages are bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}
