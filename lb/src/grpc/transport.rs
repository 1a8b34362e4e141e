//! [`Transport`]: how the channel connects to an instance and speaks HTTP/2 with it. The one seam between the
//! channel and the library that moves the bytes.

use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use callsign_core::Instance;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;

use crate::error::BoxError;
use crate::factory::{Factory, Lifeline};

/// Makes connections.
///
/// # Contract
/// - `connect` returns a connection only when the server has said something: one that accepts and keeps silent
///   fails. It may be dropped at any await, and then leaves nothing behind.
/// - A connection cuts `lifeline` as soon as it takes no new calls: closed, or told to go away. It is never
///   used again from then on, and never connects anew by itself.
/// - A connection that is dropped finishes the calls under way, then closes.
#[async_trait]
pub(super) trait Transport: Debug + Send + Sync + 'static {
    /// Connects to an instance.
    async fn connect(&self, instance: &Instance, lifeline: Lifeline) -> Result<Connection, BoxError>;
}

/// One open connection, as a transport implements it.
pub(super) trait Call: Send + Sync + 'static {
    /// Sends a request, and resolves with the head of its answer.
    fn call(&self, request: Request<Body>) -> Answer;
}

/// The head of an answer to come.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, CallError>> + Send>>;

/// Why a call failed beneath gRPC.
pub(super) struct CallError {
    pub(super) error: BoxError,
    pub(super) fate: Fate,
}

/// What has become of a request whose call failed.
pub(super) enum Fate {
    /// The server may have carried it out.
    Unknown,
    /// The caller's own stream failed with this.
    Own(Status),
    /// The server has provably not looked at it, and here it is, if it could be had back.
    Unsent(Proof, Option<Box<Request<Body>>>),
}

/// How it is known that no server has looked at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// It never left: its connection had closed before.
    NeverLeft,
    /// The server says so: it refused the stream, or went away and named the last one that it had looked at.
    Refused,
}

/// One open connection of a [`Channel`](super::Channel).
pub struct Connection(Box<dyn Call>);

impl Connection {
    pub(super) fn new(connection: impl Call) -> Self {
        Self(Box::new(connection))
    }

    pub(super) fn call(&self, request: Request<Body>) -> Answer {
        self.0.call(request)
    }
}

impl Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// A transport as the endpointer sees it.
pub(super) struct Dialler(pub(super) Box<dyn Transport>);

impl Factory<Connection> for Dialler {
    async fn make(&self, instance: Arc<Instance>, lifeline: Lifeline) -> Result<Connection, BoxError> {
        self.0.connect(&instance, lifeline).await
    }
}
