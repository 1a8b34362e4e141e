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
            // One that is closed here is none that was lost.
            let retires = since.elapsed() >= IDLE;
            let sender = &mut connection.sender;
            if sender.is_closed() || !retires && sender.ready().await.is_err() {
                self.broken();
            } else if !retires {
                return Ok(connection);
            }
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
        if idle.iter().any(|(connection, _)| connection.sender.is_closed()) {
            self.broken();
        }
        idle.retain(|(connection, since)| since.elapsed() < IDLE && !connection.sender.is_closed());
        if idle.len() < self.most && !connection.sender.is_closed() {
            idle.push((connection, Instant::now()));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

    use super::*;
    use crate::Address;

    async fn answer(stream: &mut TcpStream) {
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    }

    async fn pass(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    /// A pool, and the server's ends of its connections.
    async fn pool() -> (Arc<Pool>, mpsc::UnboundedReceiver<TcpStream>, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::try_from(listener.local_addr().unwrap().to_string().as_str()).unwrap();
        let connector = Arc::new(Connector::new(None, &[]).unwrap());
        let pool = Pool::new(Target::Tcp(address), connector, Handle::current(), 4);
        let ((send, streams), mut tasks) = (mpsc::unbounded_channel(), JoinSet::new());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                send.send(stream).unwrap();
            }
        });
        (pool, streams, tasks)
    }

    async fn ask(pool: &Pool, stream: &mut TcpStream) -> Instant {
        let request = Request::get("/").body(Bytes::new()).unwrap();
        let (answered, ()) = tokio::join!(pool.exchange("question", request, 0, true, IDLE), answer(stream));
        answered.unwrap().unbroken_since
    }

    #[tokio::test]
    async fn closing_what_is_idle_is_no_loss_and_the_server_closing_it_is() {
        let (pool, mut streams, _tasks) = pool().await;
        let (one, two) = (pool.dial().await.unwrap(), pool.dial().await.unwrap());
        let (mut first, _) = (streams.recv().await.unwrap(), streams.recv().await.unwrap());
        pool.put(two);
        pass(Duration::from_secs(1)).await;
        pool.put(one);
        let since = ask(&pool, &mut first).await;
        // One is given back when the other has been idle for too long.
        let kept = pool.get().await.unwrap();
        pass(IDLE).await;
        pool.put(kept);
        assert_eq!(pool.idle().len(), 1);
        assert_eq!(ask(&pool, &mut first).await, since);
        // All have been idle for too long.
        pass(IDLE).await;
        let asked = async {
            let mut third = streams.recv().await.unwrap();
            answer(&mut third).await;
            third
        };
        let request = Request::get("/").body(Bytes::new()).unwrap();
        let (answered, third) = tokio::join!(pool.exchange("question", request, 0, true, IDLE), asked);
        assert_eq!(answered.unwrap().unbroken_since, since);
        // The server closes it, whether or not it has been idle for too long by then.
        for idle in [Duration::ZERO, IDLE] {
            pass(Duration::from_secs(1)).await;
            let before = pool.unbroken_since();
            drop(std::mem::take(&mut *pool.idle()));
            let used = pool.dial().await.unwrap();
            drop(streams.recv().await.unwrap());
            let mut left = Some(used);
            while left.as_ref().is_some_and(|left| !left.sender.is_closed()) {
                tokio::task::yield_now().await;
            }
            pool.idle().extend(left.take().map(|left| (left, Instant::now())));
            pass(idle).await;
            drop(pool.get().await.unwrap());
            drop(streams.recv().await.unwrap());
            assert!(pool.unbroken_since() > before, "idle for {idle:?}");
        }
        drop(third);
    }
}
