//! [`Link`]: the clients of one member, on one connection, with a token of their own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use callsign_core::{Address, Connector, Error, ErrorKind, Result, Stream, Trouble};
use etcd_client::{Channel, Client, ConnectOptions, KvClient, LeaseClient, MaintenanceClient, WatchClient};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
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
    client: Client,
    /// Counts the tokens, from 1.
    generation: AtomicU64,
    /// How many requests in a row had no answer.
    silent: AtomicU32,
    /// Asking for a new one: once for all who were refused. In a task of its own, because those who wait may be dropped,
    /// or not polled for a while, and nobody else is to wait for that.
    asking: Mutex<Option<Asking>>,
}

/// What comes of asking, once it is known.
type Finding = watch::Receiver<Option<Result<()>>>;

struct Asking {
    outcome: Finding,
    task: JoinHandle<()>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
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
            token: Arc::new(Token {
                client,
                generation: AtomicU64::new(0),
                silent: AtomicU32::new(0),
                asking: Mutex::new(None),
            }),
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

    /// Whether the member answered a request that carried the token.
    pub(crate) fn answered(&self, answered: bool) {
        if answered {
            self.token.silent.store(0, Ordering::Relaxed);
        } else {
            self.token.silent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the token may be why there is no answer: etcd does not refuse one from before it was wiped or restored,
    /// but waits until its history is as long as the one that gave it. Every other request goes without asking for
    /// a new one, because it is more often etcd that hangs.
    pub(crate) fn is_doubtful(&self) -> bool {
        let silent = self.token.silent.load(Ordering::Relaxed);
        silent > 0 && silent.is_multiple_of(2)
    }

    /// Gets a token by `authenticate`, unless somebody has replaced `refused` already.
    pub(crate) async fn renew_token<F, Fut>(
        &self,
        refused: u64,
        runtime: &Handle,
        authenticate: F,
    ) -> Result<()>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let Some(mut outcome) = self.ask_for_token(refused, runtime, authenticate) else { return Ok(()) };
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(Error::new(ErrorKind::Closed, "the runtime of the registry has ended")),
        }
    }

    fn ask_for_token<F, Fut>(&self, refused: u64, runtime: &Handle, authenticate: F) -> Option<Finding>
    where
        F: FnOnce(Client) -> Fut,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let mut asking = self.token.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.token() != refused {
            return None;
        }
        if let Some(asking) = asking.as_ref().filter(|asking| asking.outcome.borrow().is_none()) {
            return Some(asking.outcome.clone());
        }
        let (tell, outcome) = watch::channel(None);
        // Weak, so that the last to use the member ends the task.
        let (token, authenticate) = (Arc::downgrade(&self.token), authenticate(self.token.client.clone()));
        let task = runtime.spawn(async move {
            let done = authenticate.await;
            if let Some(token) = token.upgrade().filter(|_| done.is_ok()) {
                token.silent.store(0, Ordering::Relaxed);
                token.generation.store(refused + 1, Ordering::Release);
            }
            tell.send_replace(Some(done));
        });
        *asking = Some(Asking { outcome: outcome.clone(), task });
        Some(outcome)
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
