//! [`TonicTransport`]: one `tonic::transport::Channel` for each connection.
//!
//! A tonic channel connects anew by itself, but only when a call comes, and shows the error of a failed dial
//! as an answer to a later call. So it is dialled eagerly, on a connector that connects once and watches the
//! bytes, and it is given up when its connection ends.

use std::fmt::{self, Debug};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use callsign_core::{Address, Instance};
use http::{Request, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error as ThisError;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower_service::Service;

use super::io::WatchedIo;
use super::lent::{Returned, lend};
use super::transport::{Answer, Call, CallError, Connection, Fate, Transport};
use crate::error::{BoxError, causes};
use crate::factory::Lifeline;

/// What the user makes of the endpoint of an instance.
pub(super) type Configure = Arc<dyn Fn(&Instance, Endpoint) -> Endpoint + Send + Sync>;

pub(super) struct TonicTransport {
    pub(super) configure: Configure,
}

impl Debug for TonicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TonicTransport")
    }
}

/// The server closed before its first frame, or it does not speak HTTP/2.
#[derive(Debug, ThisError)]
#[error("{0} accepted the connection and closed it without speaking HTTP/2: is it a gRPC server?")]
struct NotGreeted(Address);

/// The one connection of a channel has ended.
#[derive(Debug, ThisError)]
#[error("the connection has closed")]
struct Ended;

#[async_trait]
impl Transport for TonicTransport {
    async fn connect(&self, instance: &Instance, lifeline: Lifeline) -> Result<Connection, BoxError> {
        let address = instance.address();
        let endpoint = (self.configure)(instance, Endpoint::from_shared(format!("http://{address}"))?);
        let plain = endpoint.uri().scheme_str() != Some("https");
        let (greeted, greeting) = oneshot::channel();
        let once = ConnectOnce { dial: Some(Dial { address: address.clone(), plain, greeted, lifeline }) };
        let channel = endpoint.connect_with_connector(once).await?;
        // Behind TLS the handshake has shown that somebody is there.
        if plain && greeting.await.is_err() {
            return Err(Box::new(NotGreeted(address.clone())));
        }
        Ok(Connection::new(TonicConnection(channel)))
    }
}

/// Connects the first time that it is asked, and fails from then on.
struct ConnectOnce {
    dial: Option<Dial>,
}

struct Dial {
    address: Address,
    plain: bool,
    greeted: oneshot::Sender<()>,
    lifeline: Lifeline,
}

impl Dial {
    async fn run(self) -> Result<TokioIo<WatchedIo>, BoxError> {
        let io = TcpStream::connect((self.address.host(), self.address.port())).await?;
        // Calls are small, and wait for their answers.
        io.set_nodelay(true)?;
        Ok(TokioIo::new(WatchedIo::new(io, self.plain, self.greeted, self.lifeline)))
    }
}

impl Service<Uri> for ConnectOnce {
    type Response = TokioIo<WatchedIo>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.dial.take();
        Box::pin(async move { dial.ok_or(Ended)?.run().await })
    }
}

struct TonicConnection(tonic::transport::Channel);

impl Call for TonicConnection {
    fn call(&self, request: Request<Body>) -> Answer {
        let mut channel = self.0.clone();
        Box::pin(async move {
            if let Err(error) = poll_fn(|cx| channel.poll_ready(cx)).await {
                return Err(CallError { error: error.into(), fate: Fate::Unsent(Some(Box::new(request))) });
            }
            let (head, body) = request.into_parts();
            let copy = head.clone();
            let (body, mut home) = lend(body);
            let error: BoxError = match channel.call(Request::from_parts(head, body)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error.into(),
            };
            let fate = match home.look() {
                Some(Returned::Failed(failure)) => Fate::Own(failure),
                Some(Returned::Whole(body)) if is_unsent(&error) => {
                    Fate::Unsent(Some(Box::new(Request::from_parts(copy, body))))
                }
                None if is_unsent(&error) => Fate::Unsent(None),
                Some(Returned::Whole(_)) | None => Fate::Unknown,
            };
            Err(CallError { error, fate })
        })
    }
}

/// Whether the server has provably not looked at the request.
fn is_unsent(error: &BoxError) -> bool {
    causes(&**error).any(|cause| {
        // Asked for a connection after the only one had ended.
        cause.is::<Ended>()
            // hyper cancels what it has not begun to send when its connection ends.
            || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
            // The server's own word (RFC 9113, 8.7).
            || cause.downcast_ref::<h2::Error>().is_some_and(|h2| {
                h2.is_remote()
                    && (h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM)
                        || h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR))
            })
    })
}
