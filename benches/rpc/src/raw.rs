//! [`Raw`]: hyper's HTTP/2 client as it is, on one connection. Less than this nobody can do on top of hyper's client.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use callsign_bench_figures::Result;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tower_service::Service;

#[derive(Clone)]
pub(crate) struct Raw {
    requests: SendRequest<Body>,
    authority: Authority,
    _connection: Arc<AbortOnDropHandle<()>>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) =
            Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await?;
        let connection = AbortOnDropHandle::new(Handle::current().spawn(async {
            let _ = connection.await;
        }));
        let authority = address.to_string().parse()?;
        Ok(Self { requests, authority, _connection: Arc::new(connection) })
    }
}

impl Service<Request<Body>> for Raw {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    // What hyper returns has no name.
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), hyper::Error>> {
        self.requests.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        Box::pin(self.requests.send_request(request))
    }
}
