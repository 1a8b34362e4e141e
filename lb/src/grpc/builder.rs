//! [`ChannelBuilder`]: the settings of a [`Channel`].

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use callsign_core::{Instance, InstanceWatch};
use http::HeaderMap;
use tonic::transport::Endpoint;

use super::channel::{Channel, KeyOf, Pick};
use super::http2::Http2;
use super::native::NativeTransport;
use super::tonic_transport::{Configure, TonicTransport};
use super::transport::{Connection, Dialler, Transport};
use crate::balancer::Balancer;
use crate::call::Key;
use crate::ejection::Ejection;
use crate::endpointer::{Endpointer, EndpointerBuilder};
use crate::policy::{P3cEwma, Policy};

type MakePick = Box<dyn FnOnce(Endpointer<Connection>) -> Box<dyn Pick> + Send>;

/// What moves the bytes.
enum Over {
    Native(Box<Http2>),
    Endpoint(Configure),
}

/// Settings of a [`Channel`] that is to be.
#[must_use = "nothing is connected before `build`"]
pub struct ChannelBuilder {
    watch: InstanceWatch,
    policy: MakePick,
    key: Option<KeyOf>,
    tls: Option<bool>,
    over: Over,
    filter: Box<dyn Fn(&Instance) -> bool + Send + Sync>,
    wait_for_ready: bool,
    timeout: Option<Duration>,
    connect_timeout: Duration,
    backoff: Option<(Duration, Duration)>,
    concurrent_dials: Option<usize>,
    ejection: Option<Ejection>,
}

impl ChannelBuilder {
    pub(super) fn new(watch: InstanceWatch) -> Self {
        Self {
            watch,
            policy: by(P3cEwma::default()),
            key: None,
            tls: None,
            over: Over::Native(Box::default()),
            filter: Box::new(speaks_grpc),
            wait_for_ready: false,
            timeout: None,
            connect_timeout: Duration::from_secs(5),
            backoff: None,
            concurrent_dials: None,
            ejection: Some(Ejection::default()),
        }
    }

    /// Which instance a call goes to; by [`P3cEwma`], of three the one that will answer soonest. Where calls are to be shared
    /// out evenly it is [`RoundRobin`](crate::RoundRobin).
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.policy = by(policy);
        self
    }

    /// What policies that hash go by, read off a call's metadata; nothing. A [`Key`] in the extensions of a request
    /// goes before it. A call without a key goes anywhere.
    ///
    /// ```no_run
    /// # fn example(watch: callsign_core::InstanceWatch) -> callsign_lb::grpc::Channel {
    /// use callsign_lb::{Key, Maglev, grpc::Channel};
    ///
    /// Channel::builder(watch).policy(Maglev::default()).key(|headers| headers.get("x-user").map(Key::new)).build()
    /// # }
    /// ```
    pub fn key(mut self, key: impl Fn(&HeaderMap) -> Option<Key> + Send + Sync + 'static) -> Self {
        self.key = Some(Box::new(key));
        self
    }

    /// Whether a call waits until its deadline for an instance to become ready, where it would otherwise fail
    /// at once; no.
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.wait_for_ready = wait;
        self
    }

    /// How long a call may take that says nothing else, from its start to the end of the answer's body; for
    /// ever. A call's own `grpc-timeout` counts if it is shorter.
    pub fn timeout(mut self, within: Duration) -> Self {
        self.timeout = Some(within);
        self
    }

    /// How long connecting to an instance may take, until its server has answered; 5 s.
    pub fn connect_timeout(mut self, within: Duration) -> Self {
        self.connect_timeout = within;
        self
    }

    /// The bounds of the first and of the longest pause after a failed dial, as
    /// [`EndpointerBuilder::backoff`] has them; 100 ms and 5 s.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = Some((first, most));
        self
    }

    /// How many connections are made at the same time; 32.
    pub fn concurrent_dials(mut self, dials: usize) -> Self {
        self.concurrent_dials = Some(dials);
        self
    }

    /// Which instances are used at all; those registered with protocol `grpc`, `grpcs`, `h2` or `h2c`, or with
    /// none.
    pub fn filter(mut self, wanted: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Box::new(wanted);
        self
    }

    /// Whether all instances are reached over TLS, or only those that are registered with the protocol `grpcs`; all if
    /// there is an [`Http2::tls_config`].
    ///
    /// It takes the cargo feature `tls`, and [`Http2::tls_config`] says whom to trust. By
    /// [`endpoint`](Self::endpoint) it takes tonic with one of its TLS features, and says so there:
    /// `.tls(true).endpoint(move |_, endpoint| endpoint.tls_config(config.clone()).unwrap_or(endpoint))`. Where that
    /// is missing a dial fails, and nothing is sent in plain text.
    pub fn tls(mut self, all: bool) -> Self {
        self.tls = Some(all);
        self
    }

    /// How instances are connected to: TLS, keepalive, how many connections and calls. Instead of
    /// [`endpoint`](Self::endpoint); whichever is said last holds.
    pub fn http2(mut self, settings: Http2) -> Self {
        self.over = Over::Native(Box::new(settings));
        self
    }

    /// Connects by tonic's own channels, one for each connection, and configures tonic's endpoint of an instance: TLS,
    /// windows, keepalive, user agent. Instead of [`http2`](Self::http2), for those who have an endpoint that does what they
    /// need; each call passes through one more task. Whichever is said last holds.
    ///
    /// The endpoint comes as `http://ADDRESS`, and where [TLS](Self::tls) is wanted as `https://ADDRESS`; tonic heeds a
    /// `tls_config` on the latter only. Its connector is not used, so its TCP options have no effect; `TCP_NODELAY` is on.
    pub fn endpoint(
        mut self,
        configure: impl Fn(&Instance, Endpoint) -> Endpoint + Send + Sync + 'static,
    ) -> Self {
        self.over = Over::Endpoint(Arc::new(configure));
        self
    }

    /// By which rule instances that fail are left out for a while; [`Ejection::default`].
    pub fn ejection(mut self, rule: impl Into<Ejection>) -> Self {
        self.ejection = Some(rule.into());
        self
    }

    /// Leaves no instance out, however much it fails.
    pub fn without_ejection(mut self) -> Self {
        self.ejection = None;
        self
    }

    /// Starts it, on the current Tokio runtime.
    ///
    /// # Panics
    /// Outside a Tokio runtime, as [`tokio::runtime::Handle::current`] does.
    #[must_use]
    pub fn build(self) -> Channel {
        let transport: Box<dyn Transport> = match self.over {
            Over::Native(settings) => {
                let tls = self.tls.unwrap_or(settings.tls.is_some());
                Box::new(NativeTransport::new(tls, *settings, self.connect_timeout))
            }
            Over::Endpoint(configure) => {
                Box::new(TonicTransport { tls: self.tls.unwrap_or(false), configure })
            }
        };
        let mut endpoints: EndpointerBuilder<Connection, Dialler> =
            Endpointer::builder(self.watch, Dialler(transport))
                .connect_timeout(self.connect_timeout)
                .filter(self.filter);
        if let Some((first, most)) = self.backoff {
            endpoints = endpoints.backoff(first, most);
        }
        if let Some(dials) = self.concurrent_dials {
            endpoints = endpoints.concurrent_dials(dials);
        }
        if let Some(rule) = self.ejection {
            endpoints = endpoints.ejection(rule);
        }
        Channel::assemble((self.policy)(endpoints.build()), self.timeout, self.wait_for_ready, self.key)
    }
}

fn by(policy: impl Policy) -> MakePick {
    Box::new(move |endpoints| Box::new(Balancer::new(endpoints, policy)))
}

fn speaks_grpc(instance: &Instance) -> bool {
    instance.protocol().is_none_or(|protocol| matches!(protocol, "grpc" | "grpcs" | "h2" | "h2c"))
}

impl Debug for ChannelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelBuilder")
            .field("watch", &self.watch)
            .field("tls", &self.tls)
            .field("wait_for_ready", &self.wait_for_ready)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}
