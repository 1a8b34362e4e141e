//! [`Http2`]: how the channel's own transport connects to instances.

use std::fmt::{self, Debug};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use callsign_core::{Instance, Tls};
use http::HeaderValue;
use http::uri::Authority;

/// How we call ourselves, as gRPC has it: `grpc-LANGUAGE-VARIANT/VERSION`.
const USER_AGENT: &str = concat!("grpc-rust-callsign/", env!("CARGO_PKG_VERSION"));

/// Settings of the connections of a [`Channel`](super::Channel), for
/// [`ChannelBuilder::http2`](super::ChannelBuilder::http2).
///
/// ```no_run
/// # fn example(watch: callsign_core::InstanceWatch) -> callsign_lb::grpc::Channel {
/// use std::time::Duration;
///
/// use callsign_core::{Pem, Tls};
/// use callsign_lb::grpc::{Channel, Http2};
///
/// let tls = Tls::default()
///     .ca(Pem::file("/etc/book/ca.pem"))
///     .identity(Pem::file("/etc/book/client.pem"), Pem::file("/etc/book/client.key"));
/// let http2 = Http2::new().tls_config(tls).keepalive(Duration::from_secs(300), Duration::from_secs(5));
/// Channel::builder(watch).http2(http2).build()
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it changes nothing unless a builder gets it"]
pub struct Http2 {
    pub(super) tls: Option<Tls>,
    pub(super) server_name: Option<Of<String>>,
    pub(super) unix: Option<Of<PathBuf>>,
    pub(super) keepalive: Option<(Duration, Duration)>,
    pub(super) connections: usize,
    pub(super) streams: usize,
    pub(super) queue: usize,
    pub(super) user_agent: HeaderValue,
    pub(super) authority: Option<Authority>,
}

/// What something is for an instance, if it is anything.
pub(super) type Of<T> = Arc<dyn Fn(&Instance) -> Option<T> + Send + Sync>;

impl Default for Http2 {
    fn default() -> Self {
        Self {
            tls: None,
            server_name: None,
            unix: None,
            keepalive: None,
            connections: 8,
            streams: 1000,
            queue: 1000,
            user_agent: HeaderValue::from_static(USER_AGENT),
            authority: None,
        }
    }
}

impl Http2 {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whom to trust, and which certificate to show, where TLS is spoken, which is then everywhere unless
    /// [`ChannelBuilder::tls`](super::ChannelBuilder::tls) says otherwise; what this machine trusts, and none. Files are read anew for every connection, so that they may change; if they cannot be used,
    /// those that were used last are. It takes the cargo feature `tls`; without it such a dial fails.
    pub fn tls_config(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The name that the certificate of an instance must be for; that of [`Tls::server_name`], or else the host that it
    /// is registered with. `None` is the same as for all others.
    ///
    /// ```
    /// # use callsign_lb::grpc::Http2;
    /// Http2::new().server_name(|instance| instance.metadata().get("tls-name").map(ToString::to_string));
    /// ```
    pub fn server_name(mut self, name: impl Fn(&Instance) -> Option<String> + Send + Sync + 'static) -> Self {
        self.server_name = Some(Arc::new(name));
        self
    }

    /// Reaches an instance by a socket in the file system of this machine where this returns its path, and not by its
    /// address; none. It is spoken to in the clear, whatever is said of [TLS](super::ChannelBuilder::tls): nothing leaves this
    /// machine.
    ///
    /// ```
    /// # use callsign_lb::grpc::Http2;
    /// Http2::new().unix_socket(|instance| instance.metadata().get("socket").map(|path| path.as_str().into()));
    /// ```
    pub fn unix_socket(
        mut self,
        path: impl Fn(&Instance) -> Option<PathBuf> + Send + Sync + 'static,
    ) -> Self {
        self.unix = Some(Arc::new(path));
        self
    }

    /// Pings each connection, whether or not there are calls on it, when nothing was read for `interval`, and closes
    /// it if nothing is read within `timeout` after that; never. gRPC servers close connections that are pinged more often
    /// than they allow, which is once in 5 min if nobody told them otherwise.
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive = Some((interval, timeout));
        self
    }

    /// How many connections there may be to one instance, 1 at least; 8. There is one, and another is opened when all have
    /// as many calls as they take. Those that are not needed for a minute are closed.
    pub fn connections(mut self, most: usize) -> Self {
        self.connections = most.max(1);
        self
    }

    /// How many calls a connection may have at the same time, 1 at least; 1,000, or as many as the server allows, whichever
    /// is less.
    pub fn streams(mut self, most: usize) -> Self {
        self.streams = most.max(1);
        self
    }

    /// How many calls may wait until an instance takes another one, while all connections to it have as many as they
    /// take; 1,000. One more goes to another instance, or fails with `RESOURCE_EXHAUSTED`.
    pub fn queue(mut self, most: usize) -> Self {
        self.queue = most;
        self
    }

    /// What the user agent of calls begins with, as `book-client/1.0`; `grpc-rust-callsign/VERSION` alone. What a call
    /// itself says goes before it.
    pub fn user_agent(mut self, product: &HeaderValue) -> Self {
        let whole = [product.as_bytes(), b" ", USER_AGENT.as_bytes()].concat();
        // Two header values with a space between them are one.
        self.user_agent = HeaderValue::from_bytes(&whole).unwrap_or_else(|_| product.clone());
        self
    }

    /// The authority that calls are for, whichever instance gets them, by which proxies route; the address of the instance.
    pub fn authority(mut self, authority: Authority) -> Self {
        self.authority = Some(authority);
        self
    }
}

impl Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2")
            .field("tls", &self.tls)
            .field("keepalive", &self.keepalive)
            .field("connections", &self.connections)
            .field("streams", &self.streams)
            .field("queue", &self.queue)
            .field("user_agent", &self.user_agent)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}
