//! [`HttpClient`]: HTTP/1 to registries that speak it, over connections of the [`Connector`].

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tower_service::Service;

use super::Target;
use super::connect::{Connector, Stream, Trouble};
use crate::error::{Error, ErrorKind, Result};

/// A server that takes longer to accept a connection is given up.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection that was not used for so long is closed, before the server does so.
const IDLE: Duration = Duration::from_secs(45);
/// The largest answer that is taken in: some ten thousand instances with all of their metadata.
const MOST: usize = 256 << 20;

/// Sends requests to one server of a registry. Connections are kept and used again; all end with it.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<Dial, Full<Bytes>>,
    server: Target,
    trouble: Trouble,
}

/// What a server answered, whatever its status.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("server", &format_args!("{}", self.server)).finish_non_exhaustive()
    }
}

impl HttpClient {
    /// Over connections of `connector`, whose tasks run on `runtime`. Does no I/O.
    #[must_use]
    pub fn new(server: Target, connector: Connector, runtime: Handle) -> Self {
        let trouble = Trouble::default();
        let dial = Dial { server: server.clone(), connector: Arc::new(connector), trouble: trouble.clone() };
        let client =
            Client::builder(On(runtime)).pool_idle_timeout(IDLE).pool_timer(TokioTimer::new()).build(dial);
        Self { client, server, trouble }
    }

    /// Sends a request, whose URI has a path and a query, and waits for all of the answer. `what` is it, in an error.
    /// Dropped half way, it closes the connection.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): no connection, or one that broke.
    /// [`Timeout`](ErrorKind::Timeout): no whole answer within `within`.
    /// [`Malformed`](ErrorKind::Malformed): an answer that is too large.
    pub async fn send(&self, what: &str, request: Request<Bytes>, within: Duration) -> Result<HttpAnswer> {
        let server = &self.server;
        let (mut head, body) = request.into_parts();
        let mut uri = head.uri.into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(match server {
            Target::Tcp(address) => Authority::try_from(address.to_string()).map_err(|error| {
                Error::invalid(format!("{address} cannot be the host of a URL")).with_source(error)
            })?,
            Target::Unix(_) => Authority::from_static("localhost"),
        });
        head.uri = Uri::from_parts(uri)
            .map_err(|error| Error::invalid(format!("the path of the {what}")).with_source(error))?;
        let exchange = async {
            let answer =
                self.client.request(Request::from_parts(head, Full::new(body))).await.map_err(|error| {
                    let text = if error.is_connect() {
                        format!("cannot connect to {server}")
                    } else {
                        format!("{server}, {what}: the connection broke")
                    };
                    // What the server said before it hung up, where the client has lost that.
                    let cause = self.trouble.last().unwrap_or_else(|| root_cause(&error));
                    Error::new(ErrorKind::Unavailable, text).with_source(cause)
                })?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MOST).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    let text = format!("{server}, {what}: the answer has more than {MOST} bytes");
                    return Error::new(ErrorKind::Malformed, text);
                }
                let text = format!("{server}, {what}: the connection broke in the middle of the answer");
                Error::new(ErrorKind::Unavailable, text).with_source(root_cause(&*error))
            })?;
            Ok(HttpAnswer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        timeout(within, exchange).await.unwrap_or_else(|_| {
            let text = format!("{server} did not answer the {what} within {within:.1?}");
            Err(Error::new(ErrorKind::Timeout, text))
        })
    }
}

/// What all that is between says nothing more about.
fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Runs the tasks of connections where the registry's own run, whoever is the first to ask.
#[derive(Clone)]
struct On(Handle);

impl<F> hyper::rt::Executor<F> for On
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// Connects to the one server, whatever a URI says.
#[derive(Clone)]
struct Dial {
    server: Target,
    connector: Arc<Connector>,
    trouble: Trouble,
}

impl Service<Uri> for Dial {
    type Response = Dialled;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { server, connector, trouble } = self.clone();
        Box::pin(async move {
            let late = || format!("no connection within {CONNECT:?}");
            let dialled = timeout(CONNECT, connector.connect_to(&server, &trouble)).await;
            dialled
                .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, late())))
                .map(|stream| Dialled(TokioIo::new(stream)))
        })
    }
}

struct Dialled(TokioIo<Stream>);

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bytes)
    }
}
