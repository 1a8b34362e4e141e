//! [`HttpClient`]: HTTP/1 to registries that speak it, over connections of the [`Connector`].

mod exchange;
mod pending;
mod pool;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

pub use self::pending::PendingRequest;
use self::pool::Pool;
use super::Target;
use super::connect::Connector;
use crate::error::Result;

/// So many requests at once that are answered at once, and so many connections that nobody uses are kept: servers count
/// the connections of a machine, which has other clients too.
const AT_ONCE: usize = 16;

/// Sends requests to one server of a registry. Connections are kept and used again; all end with it.
#[derive(Clone)]
pub struct HttpClient {
    pool: Arc<Pool>,
    /// Of those who wait for something to happen, apart, so that they leave the others a connection.
    waiting: Arc<Pool>,
    at_once: Arc<Semaphore>,
}

/// One's turn to send, among all who send at the same time; somebody else's once it is dropped.
#[derive(Debug)]
#[must_use = "without it being held others send, too"]
pub struct HttpTurn {
    _permit: Option<OwnedSemaphorePermit>,
}

/// What a server answered, whatever its status.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpAnswer {
    /// Since when no connection was lost but those whose end the server had announced, or which were idle for so long that
    /// they were closed here: what was answered before that may
    /// have been by a server that was restarted meanwhile.
    pub unbroken_since: Instant,
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("server", &format_args!("{}", self.pool.server()))
            .finish_non_exhaustive()
    }
}

impl HttpClient {
    /// Over connections of `connector`, whose tasks run on `runtime`. Does no I/O.
    #[must_use]
    pub fn new(server: &Target, connector: Connector, runtime: &Handle) -> Self {
        let connector = Arc::new(connector);
        let pool = || Pool::new(server.clone(), Arc::clone(&connector), runtime.clone(), AT_ONCE);
        Self { pool: pool(), waiting: pool(), at_once: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The same client over the same connections, whose requests take turns with none of this one's.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { at_once: Arc::new(Semaphore::new(AT_ONCE)), ..self.clone() }
    }

    /// Sends a request, whose URI has a path and a query, and waits for all of the answer. `what` is it, in an error.
    /// Dropped half way, it closes the connection. Of all who send at the same time some wait for others, so that a
    /// server that counts connections sees few; `within` is for all of it.
    ///
    /// # Errors
    /// As [`send_and_wait`](Self::send_and_wait).
    pub async fn send(&self, what: &str, request: Request<Bytes>, within: Duration) -> Result<HttpAnswer> {
        let begun = Instant::now();
        let turn = timeout(within, self.turn()).await;
        let Ok(turn) = turn else { return Err(self.pool.late(what, within)) };
        let left = within.saturating_sub(begun.elapsed());
        timeout(left, self.send_in_turn(turn, what, request, within, within))
            .await
            .unwrap_or_else(|_| Err(self.pool.late(what, within)))
    }

    /// Waits for a turn to send, so that this wait can be told from a server that takes its time. Cancel-safe.
    pub async fn turn(&self) -> HttpTurn {
        // An error: it is never closed.
        HttpTurn { _permit: Arc::clone(&self.at_once).acquire_owned().await.ok() }
    }

    /// [`send`](Self::send) for whoever has a turn. Within `head` the answer is to begin, and all of it is to be there
    /// `within` its own time, which counts from now, too: a long list may take longer than whether a server answers at
    /// all. Dropped half way, it closes the connection.
    ///
    /// # Errors
    /// As [`send_and_wait`](Self::send_and_wait).
    pub async fn send_in_turn(
        &self,
        turn: HttpTurn,
        what: &str,
        request: Request<Bytes>,
        head: Duration,
        within: Duration,
    ) -> Result<HttpAnswer> {
        let answer = timeout(within, self.pool.exchange(what, request, 0, true, head)).await;
        drop(turn);
        answer.unwrap_or_else(|_| Err(self.pool.late(what, within)))
    }

    /// The same for a request that the server answers once something has happened: it has a connection to itself. There
    /// is room for some `bytes` of the answer at once, which spares a large one its copies; 0 says nothing.
    /// A connection that breaks is an error, always: whoever waits for news of a server is to know that it went away.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): no connection, or one that broke.
    /// [`Timeout`](crate::ErrorKind::Timeout): no whole answer within `within`.
    /// [`Malformed`](crate::ErrorKind::Malformed): an answer that is too large.
    pub async fn send_and_wait(
        &self,
        what: &str,
        request: Request<Bytes>,
        within: Duration,
        bytes: usize,
    ) -> Result<HttpAnswer> {
        timeout(within, self.waiting.exchange(what, request, bytes, false, within))
            .await
            .unwrap_or_else(|_| Err(self.waiting.late(what, within)))
    }
}
