//! [`Channel`] itself.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use callsign_core::InstanceWatch;
use http::{Request, Response};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use super::body::ResponseBody;
use super::builder::ChannelBuilder;
use super::call::{self, ResponseFuture};
use super::transport::Connection;
use crate::balancer::{Balancer, wait_for_pick};
use crate::endpointer::Endpointer;
use crate::error::PickError;
use crate::policy::{Avoid, Policy};
use crate::slot::Picked;

/// A gRPC channel over all live instances of a service: each call goes to one of them, as the policy says.
/// Generated tonic clients and their interceptors take it as they take tonic's own.
///
/// - It connects in the background, whether or not there are calls, and picks only among instances whose
///   server has answered. A connection that closes, or is told to go away, is left at once, and made anew.
/// - It is always ready. A call fails with `UNAVAILABLE` at once when the registry lists nothing, or no
///   instance can be reached; it waits up to 5 s while that is not known yet, as just after the start.
///   [`wait_for_ready`](ChannelBuilder::wait_for_ready) makes it wait for its deadline.
/// - A call that no server has looked at goes to another instance, whatever its method: because its connection closed
///   before it left, or, once, because the server says that it refused it. Nothing else is repeated; a call that may
///   have been on its way when its connection ended fails with `UNAVAILABLE`.
/// - The deadline is the request's `grpc-timeout` or the channel's
///   [`timeout`](ChannelBuilder::timeout), whichever is less. It covers waiting, head and body, travels to the
///   server, and ends the call with `DEADLINE_EXCEEDED`.
/// - The instance that answered is in the response's extensions, as an `Arc<Instance>`.
///
/// Clones are cheap handles of the same channel. When the last one is dropped, its task ends and every
/// connection is closed, as soon as the calls on it have ended.
pub struct Channel {
    pick: Box<dyn Pick>,
    shared: Arc<Shared>,
}

/// What all handles of a channel share.
pub(super) struct Shared {
    /// What the handles of calls are made from.
    prototype: Box<dyn Pick>,
    pub(super) timeout: Option<Duration>,
    wait_for_ready: bool,
}

impl Shared {
    /// A pick that waits where waiting can help, until `deadline` at the latest.
    pub(super) async fn pick(
        &self,
        avoid: &Avoid,
        deadline: Option<Instant>,
    ) -> Result<Picked<Connection>, PickError> {
        let mut handle = self.prototype.fork();
        let changes = handle.endpoints().changes();
        wait_for_pick(changes, self.wait_for_ready, deadline, || handle.pick(avoid)).await
    }
}

/// A balancer without its policy's type.
pub(super) trait Pick: Send + Sync {
    fn pick(&mut self, avoid: &Avoid) -> Result<Picked<Connection>, PickError>;
    fn endpoints(&self) -> &Endpointer<Connection>;
    /// The next handle, which takes a turn.
    fn next(&self) -> Box<dyn Pick>;
    /// A handle for a call that has had its turn.
    fn fork(&self) -> Box<dyn Pick>;
}

impl<P: Policy> Pick for Balancer<Connection, P> {
    fn pick(&mut self, avoid: &Avoid) -> Result<Picked<Connection>, PickError> {
        self.pick_avoiding(avoid)
    }

    fn endpoints(&self) -> &Endpointer<Connection> {
        Balancer::endpoints(self)
    }

    fn next(&self) -> Box<dyn Pick> {
        Box::new(self.clone())
    }

    fn fork(&self) -> Box<dyn Pick> {
        Box::new(Balancer::fork(self))
    }
}

impl Channel {
    /// A channel over the instances of a watch, one after the other, with the defaults of
    /// [`builder`](Self::builder). Its tasks run on the current Tokio runtime.
    ///
    /// # Panics
    /// Outside a Tokio runtime, as [`tokio::runtime::Handle::current`] does.
    #[must_use]
    pub fn new(watch: InstanceWatch) -> Self {
        Self::builder(watch).build()
    }

    /// A channel with other settings.
    pub fn builder(watch: InstanceWatch) -> ChannelBuilder {
        ChannelBuilder::new(watch)
    }

    pub(super) fn assemble(pick: Box<dyn Pick>, timeout: Option<Duration>, wait_for_ready: bool) -> Self {
        let shared = Shared { prototype: pick.fork(), timeout, wait_for_ready };
        Self { pick, shared: Arc::new(shared) }
    }

    /// Its connections: which instances are ready, and how many calls they have in flight.
    #[must_use]
    pub fn endpoints(&self) -> &Endpointer<Connection> {
        self.pick.endpoints()
    }
}

impl Clone for Channel {
    fn clone(&self) -> Self {
        Self { pick: self.pick.next(), shared: Arc::clone(&self.shared) }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = ResponseFuture;

    /// Always ready: generated clients make `UNKNOWN` of an error here.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let first = self.pick.pick(&Avoid::nothing());
        call::begin(Arc::clone(&self.shared), first, request)
    }
}

impl Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("endpoints", self.endpoints()).finish_non_exhaustive()
    }
}
