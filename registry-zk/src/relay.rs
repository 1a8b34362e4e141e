//! [`Relay`]: the client library's way to servers that speak TLS.
//!
//! The library opens its connections itself. Its own TLS loses why a server refuses, panics at some names of hosts, and has
//! dependencies that nobody maintains. So it is given a door on this machine's loopback for each server, and behind the door
//! begins a connection of ours: the TLS of all registries, with their settings and their words for what is wrong.
//!
//! Whatever runs on this machine can knock at a door, and who is behind it has shown our certificate. So nobody is let in,
//! and no server spoken to, who does not give a word first that this process alone knows. The library gives it as it gives
//! passwords, ahead of all others; here it is taken out and answered.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use callsign_core::{Address, Connector, Error, ErrorKind, Result, Stream, Trouble};
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::frames::{frame, read_frame};

/// As what the word is given. ZooKeeper never hears of it.
pub(crate) const SCHEME: &str = "callsign-relay";
/// How long who knocks may take to give the word.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the library may take to say farewell to the servers after it was told that all is over.
const FAREWELL: Duration = Duration::from_secs(3);
/// The kind of request that says who one is.
const AUTH: i32 = 100;

/// Doors to servers. They close when it is dropped; who is inside has a moment to leave.
pub(crate) struct Relay {
    /// The doors, for the client library.
    doors: String,
    inside: Arc<Inside>,
    /// Dropped, it ends the task.
    _open: oneshot::Sender<()>,
}

struct Inside {
    word: [u8; 32],
    connector: Arc<Connector>,
    /// How long a server may take until it has said something.
    patience: Duration,
    servers: Vec<Server>,
}

struct Server {
    address: Address,
    /// Why it was of no use the last time.
    refused: Mutex<Option<String>>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("doors", &self.doors).finish_non_exhaustive()
    }
}

impl Relay {
    /// Opens a door for each of `hosts`; what goes on behind them runs on `runtime`.
    pub(crate) fn open(
        hosts: &[Address],
        connector: Arc<Connector>,
        patience: Duration,
        runtime: &Handle,
    ) -> Result<Self> {
        let failed = |what: &str, source: io::Error| {
            Error::new(ErrorKind::Other, format!("TLS to ZooKeeper: {what}")).with_source(source)
        };
        let mut word = [0; 32];
        getrandom::fill(&mut word)
            .map_err(|error| failed("this system has no random numbers", io::Error::other(error)))?;
        let (mut listeners, mut doors, mut servers) = (Vec::new(), Vec::new(), Vec::new());
        for address in hosts {
            let bound = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| {
                listener.set_nonblocking(true)?;
                let _on = runtime.enter();
                let door = listener.local_addr()?;
                Ok((TcpListener::from_std(listener)?, door))
            });
            let (listener, door) =
                bound.map_err(|error| failed("no port of 127.0.0.1 can be opened", error))?;
            listeners.push(listener);
            doors.push(door.to_string());
            servers.push(Server { address: address.clone(), refused: Mutex::default() });
        }
        let inside = Arc::new(Inside { word, connector, patience, servers });
        let (open, closed) = oneshot::channel();
        runtime.spawn(keep(listeners, Arc::clone(&inside), closed));
        Ok(Self { doors: doors.join(","), inside, _open: open })
    }

    /// What the client library is to connect to.
    pub(crate) fn doors(&self) -> &str {
        &self.doors
    }

    /// What it is to say there first, as [`SCHEME`].
    pub(crate) fn word(&self) -> &[u8] {
        &self.inside.word
    }

    /// Why the servers were of no use that were tried last.
    pub(crate) fn refused(&self) -> Vec<String> {
        let why = |server: &Server| {
            let why = server.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
            Some(format!("{}: {why}", server.address))
        };
        self.inside.servers.iter().filter_map(why).collect()
    }
}

/// Lets in who gives the word, until it is told to close, and then for as long as somebody says farewell.
async fn keep(listeners: Vec<TcpListener>, inside: Arc<Inside>, mut closed: oneshot::Receiver<()>) {
    let mut guests = JoinSet::new();
    loop {
        let (at, knocked) = tokio::select! {
            _ = &mut closed => break,
            Some(_) = guests.join_next(), if !guests.is_empty() => continue,
            knocked = knock(&listeners) => knocked,
        };
        match knocked {
            Ok(guest) => {
                let inside = Arc::clone(&inside);
                guests.spawn(async move { inside.admit(at, guest).await });
            }
            Err(error) => {
                debug!(%error, "nobody can come in");
                // There are too many files open, which does not pass at once.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listeners);
    // An error: whoever is still there is sent away with the guests.
    let _ = timeout(FAREWELL, async { while guests.join_next().await.is_some() {} }).await;
}

/// Waits for somebody at any of the doors. Cancel-safe.
async fn knock(listeners: &[TcpListener]) -> (usize, io::Result<TcpStream>) {
    poll_fn(|cx| {
        for (at, listener) in listeners.iter().enumerate() {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready((at, accepted.map(|(stream, _)| stream)));
            }
        }
        Poll::Pending
    })
    .await
}

impl Inside {
    async fn admit(&self, at: usize, mut guest: TcpStream) {
        let Some(server) = self.servers.get(at) else { return };
        let (hello, xid) = match timeout(PATIENCE, self.word_of(&mut guest)).await {
            Ok(Ok(Some(admitted))) => admitted,
            Ok(Ok(None)) | Err(_) => return debug!("somebody knocks who does not know the word"),
            Ok(Err(error)) => return debug!(%error, "somebody knocks and goes away"),
        };
        let begun = Instant::now();
        let reached = tokio::select! {
            reached = timeout(self.patience, self.reach(server, &hello)) => reached.ok(),
            // The library has lost its patience sooner, and says nothing of why.
            () = gone(&guest) => None,
        };
        let late =
            || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:.1?}", begun.elapsed()));
        let reached = reached.unwrap_or_else(|| Err(late()));
        let refused = reached.as_ref().err().map(ToString::to_string);
        *server.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
        let ended = match reached {
            Ok((stream, granted)) => pass(guest, stream, &[granted, welcome(&xid)].concat()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            debug!(server = %server.address, %error, "a connection over TLS has ended");
        }
    }

    /// The library's first request and the number of its second one, if that gives the word.
    async fn word_of(&self, guest: &mut TcpStream) -> io::Result<Option<(Vec<u8>, [u8; 4])>> {
        guest.set_nodelay(true)?;
        let hello = read_frame(guest).await?;
        let second = read_frame(guest).await?;
        let Some((xid, request)) = second.split_first_chunk() else { return Ok(None) };
        let word = [&AUTH.to_be_bytes()[..], &[0; 4], &frame(SCHEME.as_bytes()), &frame(&self.word)].concat();
        Ok((request == word).then(|| (frame(&hello), *xid)))
    }

    /// A connection to a server that has answered the library's first request, and its answer.
    async fn reach(&self, server: &Server, hello: &[u8]) -> io::Result<(Stream, Vec<u8>)> {
        let mut stream = self.connector.connect(&server.address, &Trouble::default()).await?;
        stream.write_all(hello).await?;
        stream.flush().await?;
        let answer = read_frame(&mut stream).await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(
                error.kind(),
                "it closed the connection without a word: it is no part of a quorum, has too many connections from \
                 here (maxClientCnxns), or has lost its data",
            ),
            _ => error,
        })?;
        Ok((stream, frame(&answer)))
    }
}

/// Resolves once the other end has gone.
async fn gone(guest: &TcpStream) {
    let mut next = [0];
    // What is sent before the answer stays where it is, and then there is no telling.
    if matches!(guest.peek(&mut next).await, Ok(1..)) {
        std::future::pending::<()>().await;
    }
}

/// What ZooKeeper says to a password that it takes.
fn welcome(xid: &[u8; 4]) -> Vec<u8> {
    frame(&[&xid[..], &[0; 8 + 4]].concat())
}

/// Hands on what either says to the other, until one of them ends it.
async fn pass(mut guest: TcpStream, stream: Stream, first: &[u8]) -> io::Result<()> {
    guest.write_all(first).await?;
    let (mut from_guest, mut to_guest) = guest.split();
    let (mut from_server, mut to_server) = split(stream);
    tokio::select! {
        up = copy(&mut from_guest, &mut to_server) => {
            up?;
            // An error: it has gone, or takes no leave.
            let _ = timeout(PATIENCE, to_server.shutdown()).await;
            Ok(())
        }
        down = copy(&mut from_server, &mut to_guest) => down.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn relay(server: &TcpListener) -> Relay {
        let address = Address::try_from(server.local_addr().unwrap().to_string().as_str()).unwrap();
        let connector = Arc::new(Connector::new(None, &[]).unwrap());
        Relay::open(&[address], connector, PATIENCE, &Handle::current()).unwrap()
    }

    fn asks(word: &[u8]) -> Vec<u8> {
        let auth =
            [&7_i32.to_be_bytes()[..], &AUTH.to_be_bytes(), &[0; 4], &frame(SCHEME.as_bytes()), &frame(word)];
        [frame(b"hello"), frame(&auth.concat())].concat()
    }

    #[tokio::test]
    async fn who_does_not_know_the_word_reaches_nobody() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = relay(&server);
        let mut wrong = relay.word().to_vec();
        wrong[31] ^= 1;
        for said in
            [asks(&wrong), asks(b""), [frame(b"hello"), frame(b"")].concat(), b"\xff\xff\xff\xff".to_vec()]
        {
            let mut guest = TcpStream::connect(relay.doors()).await.unwrap();
            guest.write_all(&said).await.unwrap();
            let mut answer = Vec::new();
            // An error: it was thrown out in the middle of a sentence.
            let _ = guest.read_to_end(&mut answer).await;
            assert!(answer.is_empty());
        }
        assert!(
            timeout(Duration::from_millis(50), server.accept()).await.is_err(),
            "nobody knocks at the server"
        );
        assert!(!format!("{relay:?}").contains(&format!("{:?}", relay.word())));
    }

    #[tokio::test]
    async fn who_knows_the_word_is_let_in_and_the_server_hears_none_of_it() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = relay(&server);
        let mut guest = TcpStream::connect(relay.doors()).await.unwrap();
        guest.write_all(&[asks(relay.word()), b"and more".to_vec()].concat()).await.unwrap();
        let (mut stream, _) = server.accept().await.unwrap();
        assert_eq!(read_frame(&mut stream).await.unwrap(), b"hello");
        stream.write_all(&frame(b"granted")).await.unwrap();
        let mut more = [0; 8];
        stream.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"and more");
        assert_eq!(read_frame(&mut guest).await.unwrap(), b"granted");
        assert_eq!(read_frame(&mut guest).await.unwrap(), [[0, 0, 0, 7], [0; 4], [0; 4], [0; 4]].concat());
        assert!(relay.refused().is_empty());
        // Who is inside may still take leave, and nobody new comes.
        let door = relay.doors().to_owned();
        drop(relay);
        guest.write_all(b"farewell").await.unwrap();
        stream.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"farewell");
        assert!(TcpStream::connect(door).await.is_err());
        drop(guest);
        assert_eq!(stream.read(&mut more).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_server_that_is_slower_than_the_library_waits_is_told_of() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = relay(&server);
        let mut guest = TcpStream::connect(relay.doors()).await.unwrap();
        guest.write_all(&asks(relay.word())).await.unwrap();
        let (mut stream, _) = server.accept().await.unwrap();
        read_frame(&mut stream).await.unwrap();
        drop(guest);
        // Sent away by the relay, which has noticed.
        assert!(stream.read_u8().await.is_err());
        while relay.refused().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(relay.refused()[0].contains("no answer within"), "{:?}", relay.refused());
    }

    #[tokio::test]
    async fn why_nobody_is_reached_is_kept_until_somebody_is() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = relay(&server);
        for closes in [true, false] {
            let mut guest = TcpStream::connect(relay.doors()).await.unwrap();
            guest.write_all(&asks(relay.word())).await.unwrap();
            let (mut stream, addr) = server.accept().await.unwrap();
            read_frame(&mut stream).await.unwrap();
            if closes {
                drop(stream);
                assert!(read_frame(&mut guest).await.is_err());
                let refused = relay.refused();
                assert!(
                    refused.len() == 1 && refused[0].contains("closed the connection"),
                    "{refused:?} {addr}"
                );
            } else {
                stream.write_all(&frame(b"granted")).await.unwrap();
                read_frame(&mut guest).await.unwrap();
                assert!(relay.refused().is_empty());
            }
        }
    }
}
