//! [`Doubt`]: whether a client that is back is heard.
//!
//! ZooKeeper ends a session for whoever shows its number and password. Its own client loses its connection to that one, and
//! may have been let in again by the time that the end is asked for. Then ZooKeeper hangs up on neither, and drops without a
//! word what is asked for in a session that it has no more; the client library bears that for two fifths of the session's
//! timeout. So whoever is back has to get an answer soon, or the session is asked for on another connection.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use zookeeper_client::{Client, SessionState, StateWatcher};

/// How long a client that is back may go without an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a session is asked for at most: one that lives is taken away from its client by that, and a server that is slow
/// because everybody is back has no use for more of them.
const SELDOM: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Doubt(Mutex<Option<Followed>>);

/// Kept from one call to the next, as any of them may be dropped.
struct Followed {
    session: i64,
    states: StateWatcher,
    /// Whether it is back, and has not had an answer since.
    doubted: bool,
    /// When it was asked for last, which took it from its client.
    asked: Option<Instant>,
}

impl Doubt {
    /// Waits until a client is back and gets no answer, which is so until the session was [asked](Self::asked) for. Of those
    /// who wait one finds out. Cancel-safe.
    pub(crate) async fn mute(&self, client: &Client) {
        let session = client.session_id().0;
        let mut followed = self.0.lock().await;
        if followed.as_ref().is_none_or(|followed| followed.session != session) {
            *followed =
                Some(Followed { session, states: client.state_watcher(), doubted: false, asked: None });
        }
        let Some(followed) = &mut *followed else { return };
        loop {
            if !followed.doubted {
                followed.doubted = followed.states.changed().await == SessionState::SyncConnected;
                continue;
            }
            let answer = timeout(PATIENCE, client.check_stat("/")).await;
            if answer.is_err()
                && client.state() == SessionState::SyncConnected
                && followed.asked.is_none_or(|at| at.elapsed() > SELDOM)
            {
                return;
            }
            followed.doubted = false;
        }
    }

    /// The session was asked for.
    pub(crate) async fn asked(&self) {
        if let Some(followed) = &mut *self.0.lock().await {
            (followed.doubted, followed.asked) = (false, Some(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use callsign_core::{Address, Connector};
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::Handle;

    use crate::frames::{frame, read_frame};
    use crate::session::{Ensemble, Session};
    use crate::way::Way;

    use super::*;

    const SESSION: i64 = 7;

    /// Answers the first request on a connection.
    async fn let_in(server: &TcpListener, session: i64) -> TcpStream {
        let (mut stream, _) = server.accept().await.unwrap();
        read_frame(&mut stream).await.unwrap();
        let granted =
            [&[0; 4], &10_000_i32.to_be_bytes()[..], &session.to_be_bytes(), &frame(&[0; 16]), &[0]];
        stream.write_all(&frame(&granted.concat())).await.unwrap();
        stream
    }

    /// Answers so many more: that there is no such node, or that it is well.
    async fn answer(stream: &mut TcpStream, requests: usize) {
        for _ in 0..requests {
            let request = read_frame(stream).await.unwrap();
            let number = &request[..4];
            let error: i32 = if number == (-2_i32).to_be_bytes() { 0 } else { -101 };
            let answer = [number, &[0; 8], &error.to_be_bytes()];
            stream.write_all(&frame(&answer.concat())).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_session_that_is_gone_is_missed_though_the_connection_is_good() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::try_from(server.local_addr().unwrap().to_string().as_str()).unwrap();
        let request_timeout = Duration::from_secs(5);
        let connector = Connector::new(None, &[]).unwrap();
        let way = Way::new(vec![address], connector, false, request_timeout, Handle::current());
        let session =
            Session::new(Ensemble { way, timeout: request_timeout * 2, request_timeout, credentials: None });
        let serve = async {
            let mut first = let_in(&server, SESSION).await;
            // The library's own, and that which is asked once the session is followed.
            answer(&mut first, 2).await;
            drop(first);
            let mut second = let_in(&server, SESSION).await;
            answer(&mut second, 1).await;
            // Nothing more is heard on that one. Whoever asks otherwise is told.
            drop(let_in(&server, 0).await);
            second
        };
        let follow = async {
            let client = session.client().await.unwrap();
            let begun = Instant::now();
            let found = timeout(request_timeout, session.found_ended(&client));
            tokio::join!(found, client.check_stat("/")).0.unwrap();
            assert!(!session.lives(&client));
            begun.elapsed()
        };
        let (_second, took) = tokio::join!(serve, follow);
        assert!(took >= PATIENCE && took < Duration::from_secs(3), "{took:?}");
    }
}
