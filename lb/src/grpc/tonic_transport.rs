//! [`TonicTransport`]: one `tonic::transport::Channel` for each connection.
//!
//! A tonic channel connects anew by itself, but only when a call comes, and shows the error of a failed dial
//! as an answer to a later call. So it is dialled eagerly, on a connector that connects once and watches the
//! bytes, and it is given up when its connection ends.

use std::fmt::{self, Debug};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use callsign_core::{Address, Instance};
use http::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower_service::Service;

use super::body::AnswerBody;
use super::fate::{self, Ended};
use super::frames::Frame;
use super::io::{Watch, WatchedIo};
use super::lent::lend;
use super::transport::{CallError, Connection, Fate, NotGreeted, Proof, Transport};
use crate::error::BoxError;
use crate::factory::Lifeline;

/// What the user makes of the endpoint of an instance.
pub(super) type Configure = Arc<dyn Fn(&Instance, Endpoint) -> Endpoint + Send + Sync>;

pub(super) struct TonicTransport {
    /// Whether all instances are reached over TLS, and not only those that say so.
    pub(super) tls: bool,
    pub(super) configure: Configure,
}

impl Debug for TonicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TonicTransport")
    }
}

#[async_trait]
impl Transport for TonicTransport {
    async fn connect(&self, instance: &Arc<Instance>, lifeline: Lifeline) -> Result<Connection, BoxError> {
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
        Ok(TonicConnection { channel, lifeline }.into())
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
    async fn run(self) -> Result<TokioIo<WatchedIo<TcpStream, Note>>, BoxError> {
        let io = TcpStream::connect((self.address.host(), self.address.port())).await?;
        // Calls are small, and wait for their answers.
        io.set_nodelay(true)?;
        let note =
            Note { plain: self.plain, written: false, greeted: Some(self.greeted), lifeline: self.lifeline };
        Ok(TokioIo::new(WatchedIo::new(io, self.plain, note)))
    }
}

impl Service<Uri> for ConnectOnce {
    type Response = TokioIo<WatchedIo<TcpStream, Note>>;
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

pub(super) struct TonicConnection {
    channel: tonic::transport::Channel,
    lifeline: Lifeline,
}

impl TonicConnection {
    pub(super) async fn call(&self, request: Request<Body>) -> Result<Response<AnswerBody>, CallError> {
        let mut channel = self.channel.clone();
        if let Err(error) = poll_fn(|cx| channel.poll_ready(cx)).await {
            self.lifeline.cut();
            let fate = Fate::Unsent(Proof::NeverLeft, Some(Box::new(request)));
            return Err(CallError { error: error.into(), fate });
        }
        let (head, body) = request.into_parts();
        let copy = head.clone();
        let (body, home) = lend(body);
        match channel.call(Request::from_parts(head, Body::new(body))).await {
            Ok(answer) => {
                home.answered();
                Ok(answer.map(|body| AnswerBody::Endpoint { body, _request: home }))
            }
            Err(error) => Err(fate::of(error.into(), copy, home, || self.lifeline.cut()).await),
        }
    }
}

/// Tells the endpointer of the end, and the dial of the greeting.
struct Note {
    plain: bool,
    written: bool,
    /// Told of the server's SETTINGS, its first frame.
    greeted: Option<oneshot::Sender<()>>,
    lifeline: Lifeline,
}

impl Watch for Note {
    fn sees(&mut self, frame: Frame) {
        match frame {
            Frame::Settings { .. } => {
                if let Some(greeted) = self.greeted.take() {
                    // Nobody listens any more if the dial was given up.
                    let _ = greeted.send(());
                }
            }
            Frame::GoAway => self.lifeline.cut(),
            Frame::Headers { .. } => {}
        }
    }

    /// tonic, built without TLS, speaks plain text to an `https` endpoint without a word. Nothing of a call is to be
    /// readable that was to be secret.
    fn writes(&mut self, first: &[u8]) -> io::Result<()> {
        let leaks = !self.plain && !self.written && first.starts_with(b"PRI * HTTP/2");
        self.written |= !first.is_empty();
        if leaks {
            self.lifeline.cut();
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "TLS was asked for and is not set up: build tonic with one of its TLS features, and give the endpoint \
                 a tls_config",
            ));
        }
        Ok(())
    }

    fn ends(&mut self) {
        self.lifeline.cut();
    }
}
