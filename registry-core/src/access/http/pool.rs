//! [`Pool`]: the connections to one server. A connection that has done its work is the next one's at once, so that
//! there are never more than there are exchanges at the same time.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::Target;
use crate::access::connect::{Connector, Trouble};

/// A server that takes longer to accept a connection is given up.
const CONNECT: Duration = Duration::from_secs(2);
/// A connection that was not used for so long is closed, before the server does so.
const IDLE: Duration = Duration::from_secs(45);

pub(super) struct Pool {
    server: Target,
    connector: Arc<Connector>,
    trouble: Trouble,
    runtime: Handle,
    /// Those that nobody uses, the one that was used last at the end.
    idle: Mutex<Vec<(Connection, Instant)>>,
    most: usize,
    broken: Mutex<Instant>,
}

/// A connection, which closes when it is dropped.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    /// Whether it has had an exchange, and may be closed by now.
    pub(super) used: bool,
    _task: AbortOnDropHandle<()>,
}

impl Pool {
    /// Keeps `most` connections that nobody uses. Their tasks run on `runtime`, whoever is the first to ask.
    pub(super) fn new(server: Target, connector: Arc<Connector>, runtime: Handle, most: usize) -> Arc<Self> {
        let trouble = Trouble::default();
        Arc::new(Self {
            server,
            connector,
            trouble,
            runtime,
            idle: Mutex::default(),
            most,
            broken: Mutex::new(Instant::now()),
        })
    }

    pub(super) fn server(&self) -> &Target {
        &self.server
    }

    /// What the server said last before it hung up, where that is lost otherwise.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.last()
    }

    /// One that is ready for an exchange.
    pub(super) async fn get(&self) -> io::Result<Connection> {
        loop {
            let Some((mut connection, since)) = self.idle().pop() else { return self.dial().await };
            if since.elapsed() < IDLE && connection.sender.ready().await.is_ok() {
                return Ok(connection);
            }
            self.broken();
        }
    }

    /// Notes that a connection was lost.
    pub(super) fn broken(&self) {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Since when none was.
    pub(super) fn unbroken_since(&self) -> Instant {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that nobody has used yet.
    pub(super) async fn dial(&self) -> io::Result<Connection> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT:?}"));
        let stream = self.connector.connect_to(&self.server, &self.trouble);
        let stream = timeout(CONNECT, stream).await.unwrap_or_else(|_| Err(late()))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // What goes wrong is told to whoever waits for the answer.
        let task = self.runtime.spawn(async move { drop(connection.await) });
        Ok(Connection { sender, used: false, _task: AbortOnDropHandle::new(task) })
    }

    /// Gives one back after an exchange.
    pub(super) fn put(&self, mut connection: Connection) {
        connection.used = true;
        let mut idle = self.idle();
        let were = idle.len();
        idle.retain(|(connection, since)| since.elapsed() < IDLE && !connection.sender.is_closed());
        if idle.len() < were {
            self.broken();
        }
        if idle.len() < self.most && !connection.sender.is_closed() {
            idle.push((connection, Instant::now()));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
