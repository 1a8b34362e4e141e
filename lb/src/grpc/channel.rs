//! [`Channel`] itself.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use callsign_core::InstanceWatch;
use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use super::body::ResponseBody;
use super::builder::ChannelBuilder;
use super::call::{self, ResponseFuture};
use super::transport::Connection;
use crate::balancer::{Balancer, wait_for_pick};
use crate::call::{Call, Key};
use crate::endpointer::Endpointer;
use crate::error::PickError;
use crate::picked::Picked;
use crate::policy::Policy;

/// A gRPC channel over all live instances of a service: each call goes to one of them, as the policy says.
/// Generated tonic clients and their interceptors take it as they take tonic's own.
///
/// - It connects in the background, whether or not there are calls, and picks only among instances whose
///   server has answered. A connection that closes, or is told to go away, is left at once, and made anew.
/// - An instance that has said nothing for 1 s while calls wait for its answer is dialled anew, beside; if that is not
///   ready in 1 s, the instance is left until it is. By [`ChannelBuilder::endpoint`] it is not.
/// - Each instance has one connection, and more when the server allows no more calls on it; [`Http2`](super::Http2) has the
///   limits, and TLS, keepalive and Unix sockets.
/// - It is always ready. A call fails with `UNAVAILABLE` at once when the registry lists nothing, or no
///   instance can be reached; it waits up to 5 s while that is not known yet, as just after the start.
///   [`wait_for_ready`](ChannelBuilder::wait_for_ready) makes it wait for its deadline.
/// - A call that no server has looked at goes to another instance, whatever its method: because its connection closed
///   before it left, or, once, because the server says that it refused it. Nothing else is repeated; a call that may
///   have been on its way when its connection ended fails with `UNAVAILABLE`.
/// - The deadline is the request's `grpc-timeout` or the channel's
///   [`timeout`](ChannelBuilder::timeout), whichever is less. It covers waiting, head and body, travels to the
///   server, and ends the call with `DEADLINE_EXCEEDED`.
/// - A call goes to whichever of three instances will answer soonest, and instances that fail more than the others are
///   left out for a while, unless [`policy`](ChannelBuilder::policy) and [`ejection`](ChannelBuilder::ejection) say
///   otherwise.
/// - What policies that hash go by is the [`Key`] in the request's extensions, or what
///   [`ChannelBuilder::key`] reads off its metadata.
/// - Failures, for policies that mind them, are the codes `UNAVAILABLE`, `RESOURCE_EXHAUSTED`, `DEADLINE_EXCEEDED`,
///   `INTERNAL`, `UNKNOWN` and `DATA_LOSS`, and connections that broke; never what the caller cancelled. Latency is
///   the time until the head of the answer, as a stream may be open for hours.
/// - The instance that answered is in the response's extensions, as an `Arc<Instance>`.
///
/// Clones are cheap handles of the same channel, each with a [`Local`](crate::Policy::Local) of its own. When the last one is dropped, its task ends and every
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
    key: Option<KeyOf>,
}

/// Reads the key of a call off its headers.
pub(super) type KeyOf = Box<dyn Fn(&HeaderMap) -> Option<Key> + Send + Sync>;

impl Shared {
    /// A pick that waits where waiting can help, until `deadline` at the latest.
    pub(super) async fn pick(
        &self,
        call: &Call,
        deadline: Option<Instant>,
    ) -> Result<Picked<Connection>, PickError> {
        let mut handle = self.prototype.fork();
        let changes = handle.endpoints().changes();
        wait_for_pick(changes, self.wait_for_ready, deadline, || handle.pick(call)).await
    }
}

/// A balancer without its policy's type.
pub(super) trait Pick: Send + Sync {
    fn pick(&mut self, call: &Call) -> Result<Picked<Connection>, PickError>;
    fn endpoints(&self) -> &Endpointer<Connection>;
    /// The next handle, which takes a turn.
    fn next(&self) -> Box<dyn Pick>;
    /// A handle for a call that has had its turn.
    fn fork(&self) -> Box<dyn Pick>;
}

impl<P: Policy> Pick for Balancer<Connection, P> {
    fn pick(&mut self, call: &Call) -> Result<Picked<Connection>, PickError> {
        self.pick_for(call)
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
    /// A channel over the instances of a watch, with the defaults of
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

    pub(super) fn assemble(
        pick: Box<dyn Pick>,
        timeout: Option<Duration>,
        wait_for_ready: bool,
        key: Option<KeyOf>,
    ) -> Self {
        let shared = Shared { prototype: pick.fork(), timeout, wait_for_ready, key };
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
        let key = request.extensions().get::<Key>().copied();
        let key = key.or_else(|| self.shared.key.as_ref()?(request.headers()));
        let ask = key.map_or(Call::new(), |key| Call::new().with_key(key));
        let first = self.pick.pick(&ask);
        call::begin(Arc::clone(&self.shared), ask, first, request)
    }
}

impl Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("endpoints", self.endpoints()).finish_non_exhaustive()
    }
}
