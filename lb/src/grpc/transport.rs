//! [`Transport`]: how the channel connects to an instance and speaks HTTP/2 with it. The one seam between the
//! channel and the library that moves the bytes.

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use callsign_core::{Address, Instance};
use http::{Request, Response};
use thiserror::Error as ThisError;
use tonic::Status;
use tonic::body::Body;

use super::body::AnswerBody;
use super::native::NativeConnection;
use super::tonic_transport::TonicConnection;
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
    async fn connect(&self, instance: &Arc<Instance>, lifeline: Lifeline) -> Result<Connection, BoxError>;
}

/// The server closed before its first frame, or it does not speak HTTP/2.
#[derive(Debug, ThisError)]
#[error("{0} accepted the connection and closed it without speaking HTTP/2: is it a gRPC server?")]
pub(super) struct NotGreeted(pub(super) Address);

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
    /// It never left: its connection had closed before, or had no place for it.
    NeverLeft,
    /// The server says so: it refused the stream, or went away and named the last one that it had looked at.
    Refused,
}

/// One open connection of a [`Channel`](super::Channel) to an instance. By the native transport it may be several.
pub struct Connection(Kind);

enum Kind {
    Native(NativeConnection),
    Endpoint(TonicConnection),
}

impl Connection {
    /// Sends a request, and resolves with the head of its answer.
    pub(super) async fn call(&self, request: Request<Body>) -> Result<Response<AnswerBody>, CallError> {
        match &self.0 {
            Kind::Native(connection) => connection.call(request).await,
            Kind::Endpoint(connection) => connection.call(request).await,
        }
    }
}

impl From<NativeConnection> for Connection {
    fn from(connection: NativeConnection) -> Self {
        Self(Kind::Native(connection))
    }
}

impl From<TonicConnection> for Connection {
    fn from(connection: TonicConnection) -> Self {
        Self(Kind::Endpoint(connection))
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
