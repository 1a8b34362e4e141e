//! [`Doubt`]: whether a client that is back is heard.
//!
//! ZooKeeper ends a session for whoever shows its number and password. Its own client loses its connection to that one, and
//! may have been let in again by the time that the end is asked for. Then ZooKeeper hangs up on neither, and drops without a
//! word what is asked for in a session that it has no more; the client library bears that for two fifths of the session's
//! timeout. So whoever is back has to get an answer soon, or the session is asked for on another connection.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};
use zookeeper_client::{Client, SessionState, StateWatcher};

/// How long a client that is back may go without an answer, and twice as long each time that it was only slow.
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
    /// When it was last about to be asked for, which takes it from its client.
    asked: Option<Instant>,
    patience: Duration,
}

/// A client that is back and gets no answer. While it is held nobody else finds that out: each who asks for the session
/// takes it away, so that one has to ask for all.
pub(crate) struct Mute<'a>(MutexGuard<'a, Option<Followed>>);

impl Mute<'_> {
    /// The session was asked for, and lives.
    pub(crate) fn asked(mut self) {
        if let Some(followed) = &mut *self.0 {
            followed.doubted = false;
        }
    }
}

impl Doubt {
    /// Waits until a client is back and gets no answer, which is so until the session was [asked](Mute::asked) for. Of
    /// those who wait one finds out. Cancel-safe.
    pub(crate) async fn mute(&self, client: &Client) -> Mute<'_> {
        let session = client.session_id().0;
        let mut held = self.0.lock().await;
        if held.as_ref().is_none_or(|followed| followed.session != session) {
            let states = client.state_watcher();
            *held = Some(Followed { session, states, doubted: false, asked: None, patience: PATIENCE });
        }
        while let Some(followed) = &mut *held {
            if !followed.doubted {
                followed.doubted = followed.states.changed().await == SessionState::SyncConnected;
                continue;
            }
            let answer = timeout(followed.patience, client.check_stat("/")).await;
            if answer.is_err()
                && client.state() == SessionState::SyncConnected
                && followed.asked.is_none_or(|at| at.elapsed() > SELDOM)
            {
                // Now and not once there is an answer: whoever asks may be cut off, and has asked all the same.
                followed.asked = Some(Instant::now());
                // Of a session that has ended nobody asks again.
                followed.patience *= 2;
                break;
            }
            followed.doubted = false;
        }
        Mute(held)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::sleep;

    use crate::fake::{REQUEST, SESSION, grant, let_in, listen, session};
    use crate::frames::{frame, read_frame};
    use crate::owners::Left;
    use crate::session::User;

    use super::*;

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

    /// A session that lives, whose server hangs up once and then says nothing until by two fifths of the session's timeout
    /// its own client would dial anew; and who asked for the session meanwhile, who are let in or not.
    async fn silence(server: &TcpListener, let_in_who_asks: bool) -> (TcpStream, Vec<TcpStream>) {
        let mut first = let_in(server, SESSION).await;
        answer(&mut first, 1 + 1).await;
        drop(first);
        let mut silent = let_in(server, SESSION).await;
        answer(&mut silent, 1).await;
        let mut asked = Vec::new();
        let most = sleep(REQUEST * 2 * 2 / 5 - PATIENCE / 4);
        tokio::pin!(most);
        loop {
            tokio::select! {
                () = &mut most => return (silent, asked),
                Ok((mut stream, _)) = server.accept() => {
                    if let_in_who_asks {
                        grant(&mut stream, SESSION).await;
                    }
                    asked.push(stream);
                }
            }
        }
    }

    #[tokio::test]
    async fn a_session_that_is_gone_is_missed_though_the_connection_is_good() {
        let server = listen().await;
        let session = session(&server);
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
            let found = timeout(REQUEST, session.found_ended(&client));
            tokio::join!(found, client.check_stat("/")).0.unwrap();
            assert!(!session.lives(&client));
            begun.elapsed()
        };
        let (_second, took) = tokio::join!(serve, follow);
        assert!(took >= PATIENCE && took < Duration::from_secs(3), "{took:?}");
    }

    /// Whoever asks takes the session over, so that of many who follow it one asks, however slow its server is.
    #[tokio::test]
    async fn of_many_who_doubt_a_session_one_asks_for_it() {
        let server = listen().await;
        let session = session(&server);
        let serve = silence(&server, true);
        let follow = async {
            let client = session.client().await.unwrap();
            let follow = async || {
                // As the next renewal would.
                let _ = timeout(PATIENCE * 5, session.found_ended(&client)).await;
            };
            tokio::join!(follow(), follow(), follow(), client.check_stat("/")).3.ok();
            assert!(session.lives(&client));
        };
        let ((_silent, asked), ()) = tokio::join!(serve, follow);
        assert_eq!(asked.len(), 1, "of three");
    }

    /// A session of four seconds is renewed every 1.3 s, by calls that end those that ask.
    #[tokio::test]
    async fn who_is_cut_off_in_the_middle_has_asked_all_the_same() {
        let server = listen().await;
        let session = session(&server);
        // As slow to those who ask.
        let serve = silence(&server, false);
        let follow = async {
            let client = session.client().await.unwrap();
            let follow = async || {
                for _ in 0..3 {
                    let _ = timeout(PATIENCE * 4 / 3, session.found_ended(&client)).await;
                }
            };
            tokio::join!(follow(), follow(), client.check_stat("/")).2.ok();
        };
        let ((_silent, asked), ()) = tokio::join!(serve, follow);
        assert_eq!(asked.len(), 1);
    }

    /// What could not be removed goes with its session, once nobody is left who would remove it.
    #[tokio::test]
    async fn the_last_to_go_ends_a_session_that_keeps_what_was_left() {
        for left in [true, false] {
            let server = listen().await;
            let session = Arc::new(session(&server));
            let users = [User::new(&session), User::new(&session)];
            let serve = async {
                let mut stream = let_in(&server, SESSION).await;
                answer(&mut stream, 1).await;
                // Until it is hung up, or asked for nothing more.
                let ended = timeout(PATIENCE, async {
                    while read_frame(&mut stream).await.is_ok_and(|it| it[4..8] != [0xff, 0xff, 0xff, 0xf5]) {
                    }
                });
                ended.await.is_ok()
            };
            let go = async {
                drop(session.client().await.unwrap());
                if left {
                    session.owners.leave(Left { path: "/a".to_owned(), sessions: vec![SESSION] });
                }
                // Both at once: neither counts the other.
                let gone = users.map(|user| std::thread::spawn(move || drop(user)));
                gone.into_iter().for_each(|gone| gone.join().unwrap());
            };
            let (ended, ()) = tokio::join!(serve, go);
            assert_eq!(ended, left, "it ends where something was left, and only there");
        }
    }
}
