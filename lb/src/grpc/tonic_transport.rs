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
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Address, Instance};
use http::{Request, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error as ThisError;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower_service::Service;

use super::io::WatchedIo;
use super::lent::{Returned, lend};
use super::transport::{Answer, Call, CallError, Connection, Fate, Proof, Transport};
use crate::error::{BoxError, causes};
use crate::factory::Lifeline;

/// What the user makes of the endpoint of an instance.
pub(super) type Configure = Arc<dyn Fn(&Instance, Endpoint) -> Endpoint + Send + Sync>;

pub(super) struct TonicTransport {
    /// Whether all instances are reached over TLS, and not only those that say so.
    pub(super) tls: bool,
    pub(super) configure: Configure,
}

/// How long it may take until a body is let go of whose stream has ended.
const HOME: Duration = Duration::from_secs(1);

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
        let scheme = if self.tls || instance.protocol() == Some("grpcs") { "https" } else { "http" };
        let endpoint = (self.configure)(instance, Endpoint::from_shared(format!("{scheme}://{address}"))?);
        let plain = endpoint.uri().scheme_str() != Some("https");
        let (greeted, greeting) = oneshot::channel();
        let dial = Dial { address: address.clone(), plain, greeted, lifeline: lifeline.clone() };
        let channel = endpoint.connect_with_connector(ConnectOnce { dial: Some(dial) }).await?;
        // Behind TLS the handshake has shown that somebody is there.
        if plain && greeting.await.is_err() {
            return Err(Box::new(NotGreeted(address.clone())));
        }
        Ok(Connection::new(TonicConnection { channel, lifeline }))
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

struct TonicConnection {
    channel: tonic::transport::Channel,
    lifeline: Lifeline,
}

impl Call for TonicConnection {
    fn call(&self, request: Request<Body>) -> Answer {
        let (mut channel, lifeline) = (self.channel.clone(), self.lifeline.clone());
        Box::pin(async move {
            if let Err(error) = poll_fn(|cx| channel.poll_ready(cx)).await {
                lifeline.cut();
                let fate = Fate::Unsent(Proof::NeverLeft, Some(Box::new(request)));
                return Err(CallError { error: error.into(), fate });
            }
            let (head, body) = request.into_parts();
            let copy = head.clone();
            let (body, mut home) = lend(body);
            let error: BoxError = match channel.call(Request::from_parts(head, body)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error.into(),
            };
            let says = what_it_says(&error);
            if matches!(says, Says::NeverLeft) {
                // It takes no more calls, though it may live on for those that it has: TLS hides the word to go away.
                lifeline.cut();
            }
            let returned = match says {
                Says::Nothing => home.look(),
                // Whoever was sending the body is about to let go of it.
                _ => timeout(HOME, home.wait()).await.unwrap_or_default(),
            };
            let again = |body| Some(Box::new(Request::from_parts(copy, body)));
            let fate = match (says, returned) {
                (_, Some(Returned::Failed(failure))) => Fate::Own(failure),
                (Says::NeverLeft, Some(Returned::Whole { body, .. })) => {
                    Fate::Unsent(Proof::NeverLeft, again(body))
                }
                (Says::Refused, Some(Returned::Whole { body, .. }))
                | (Says::WentAway, Some(Returned::Whole { body, begun: true })) => {
                    Fate::Unsent(Proof::Refused, again(body))
                }
                // The body was asked for before its stream ended by the server's word.
                (Says::NeverLeft, None) => Fate::Unsent(Proof::NeverLeft, None),
                (Says::Refused | Says::WentAway, None) => Fate::Unsent(Proof::Refused, None),
                // The connection said it and not the stream: the head may have been on its way by then.
                (Says::WentAway, Some(Returned::Whole { begun: false, .. })) | (Says::Nothing, _) => {
                    Fate::Unknown
                }
            };
            Err(CallError { error, fate })
        })
    }
}

/// What an error says of whether the server has looked at the request.
#[derive(Clone, Copy)]
enum Says {
    Nothing,
    /// It never left this machine.
    NeverLeft,
    /// The server refused the stream.
    Refused,
    /// The server went away, and has not looked at this stream if it is the stream that says so.
    WentAway,
}

fn what_it_says(error: &BoxError) -> Says {
    for cause in causes(&**error) {
        // Asked for a connection after the only one had ended; or cancelled by hyper, which does so with what it has not
        // begun to send when its connection ends.
        if cause.is::<Ended>() || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
        {
            return Says::NeverLeft;
        }
        // The server's own word (RFC 9113, 8.7).
        if let Some(h2) = cause.downcast_ref::<h2::Error>().filter(|h2| h2.is_remote()) {
            if h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM) {
                return Says::Refused;
            }
            if h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR) {
                return Says::WentAway;
            }
        }
    }
    Says::Nothing
}
