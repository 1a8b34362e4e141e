//! [`Link`]: the clients of one member, on one connection, with a token of their own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use callsign_core::{Address, Connector, Stream, Trouble};
use etcd_client::{Channel, Client, ConnectOptions, KvClient, LeaseClient, MaintenanceClient, WatchClient};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::context::TokioContext;
use tonic::transport::Endpoint;
use tower_service::Service;

/// A member that takes longer to accept a connection is passed over.
const CONNECT: Duration = Duration::from_secs(2);
/// etcd closes a connection that pings more often than every 5 s. A connection that died silently is found out
/// after interval and timeout together.
const PING: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));
/// The largest page of a list.
pub(crate) const MAX_PAGE: usize = 16 * 1024 * 1024;
/// The largest message of a watch: up to a thousand revisions come in one when it catches up.
const MAX_EVENTS: usize = 64 * 1024 * 1024;

/// The clients of one member; clones share one connection and one token.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) kv: KvClient,
    pub(crate) watch: WatchClient,
    pub(crate) lease: LeaseClient,
    pub(crate) maintenance: MaintenanceClient,
    token: Arc<Token>,
    trouble: Trouble,
}

/// The token that a member knows us by.
struct Token {
    /// Held while a new one is asked for, so that all who were refused ask once.
    client: Mutex<Client>,
    /// Counts the tokens, from 1.
    generation: AtomicU64,
}

impl Link {
    /// Opens nothing yet: the first request connects.
    pub(crate) async fn new(
        address: &Address,
        connector: Arc<Connector>,
        runtime: Handle,
    ) -> Result<Self, etcd_client::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .http2_keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            // etcd counts pings on a connection without requests as an attack.
            .keep_alive_while_idle(false);
        let trouble = Trouble::default();
        let dial = Dial { address: address.clone(), connector, trouble: trouble.clone() };
        let open = async move {
            let channel = endpoint.connect_with_connector_lazy(dial);
            let options = ConnectOptions::new().with_require_leader(true);
            Client::from_channel(Channel::Tonic(channel), Some(options)).await
        };
        // The connection's tasks must outlive whatever runtime happens to ask first.
        let client = TokioContext::new(open, runtime).await?;
        Ok(Self {
            kv: client.kv_client().max_decoding_message_size(MAX_PAGE),
            watch: client.watch_client().max_decoding_message_size(MAX_EVENTS),
            lease: client.lease_client(),
            maintenance: client.maintenance_client(),
            token: Arc::new(Token { client: Mutex::new(client), generation: AtomicU64::new(0) }),
            trouble,
        })
    }

    /// Why the last connection was refused, if it was.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.last()
    }

    /// Which token requests carry from now on; 0 for none.
    pub(crate) fn token(&self) -> u64 {
        self.token.generation.load(Ordering::Acquire)
    }

    /// Gets a token by `authenticate`, unless somebody has replaced `refused` already.
    pub(crate) async fn renew_token<F, E>(&self, refused: u64, authenticate: F) -> Result<(), E>
    where
        F: AsyncFnOnce(&mut Client) -> Result<(), E>,
    {
        let mut client = self.token.client.lock().await;
        if self.token() == refused {
            authenticate(&mut client).await?;
            self.token.generation.store(refused + 1, Ordering::Release);
        }
        Ok(())
    }
}

/// Connects to one member, as often as it is asked.
struct Dial {
    address: Address,
    connector: Arc<Connector>,
    trouble: Trouble,
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (address, connector, trouble) =
            (self.address.clone(), Arc::clone(&self.connector), self.trouble.clone());
        Box::pin(async move {
            let dialled = timeout(CONNECT, connector.connect(&address, &trouble)).await;
            let late =
                || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT:?}"));
            dialled.unwrap_or_else(|_| Err(late())).map(TokioIo::new)
        })
    }
}
