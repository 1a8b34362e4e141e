//! [`Raw`]: access to a ZooKeeper server in its own protocol, so that nothing of our own backend, nor of the client
//! library beneath it, is trusted.
//!
//! Each call has a session of its own, but for those that write much.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The most that one call may take.
const ANSWER: Duration = Duration::from_secs(20);
/// Requests that are under way at once, of a call that makes many.
const AT_ONCE: usize = 500;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const SET_ACL: i32 = 7;
const GET_CHILDREN: i32 = 8;
const CLOSE_SESSION: i32 = -11;

/// There is no such node.
const NO_NODE: i32 = -101;
/// There is such a node already.
const NODE_EXISTS: i32 = -110;

/// What stands behind the data of a node: 68 bytes.
const STAT: usize = 68;

/// Calls to one server.
#[derive(Debug, Clone)]
pub struct Raw {
    addr: SocketAddr,
}

/// What a server is in its ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// All writes go through it.
    Leads,
    /// It follows the leader, or is the only one.
    Follows,
}

/// A node as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it holds.
    pub data: Vec<u8>,
    /// The transaction that created it.
    pub created: i64,
    /// The session that it ends with; 0 if with none.
    pub owner: i64,
}

impl Raw {
    /// Calls to the server that serves at `addr`.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr }
    }

    /// Whether it grants sessions, and so is part of a quorum.
    pub async fn is_ready(&self) -> bool {
        matches!(timeout(Duration::from_secs(2), self.session(None)).await, Ok(Ok(_)))
    }

    /// What it is in its ensemble; `None` while it is part of no quorum.
    ///
    /// # Errors
    /// No answer.
    pub async fn role(&self) -> io::Result<Option<Role>> {
        let said = self.say("srvr").await?;
        let role = said.lines().find_map(|line| line.strip_prefix("Mode: "));
        Ok(role.map(|role| if role == "leader" { Role::Leads } else { Role::Follows }))
    }

    /// What it answers to one of its words of four letters.
    async fn say(&self, word: &str) -> io::Result<String> {
        let answer = async {
            let mut stream = TcpStream::connect(self.addr).await?;
            stream.write_all(word.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        timeout(ANSWER, answer).await.map_err(io::Error::other)?
    }

    /// Creates a persistent node with all above it, or replaces what it holds.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn put(&self, path: &str, data: &[u8]) -> io::Result<()> {
        self.put_many(&[(path.to_owned(), data.to_vec())]).await
    }

    /// The same with many nodes of one parent.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_many(&self, nodes: &[(String, Vec<u8>)]) -> io::Result<()> {
        let mut session = self.session(None).await?;
        let Some((first, _)) = nodes.first() else { return Ok(()) };
        for (at, _) in first.match_indices('/').filter(|(at, _)| *at > 0) {
            session.send(CREATE, &create(&first[..at], &[])).await?;
            allow(session.receive().await?, &[NODE_EXISTS])?;
        }
        for some in nodes.chunks(AT_ONCE) {
            // Created or replaced: the one of the two that is wrong comes to nothing.
            for (path, data) in some {
                session.send(CREATE, &create(path, data)).await?;
                session.send(SET_DATA, &Bytes::default().text(path).bytes(data).int(-1)).await?;
            }
            for _ in some {
                allow(session.receive().await?, &[NODE_EXISTS])?;
                allow(session.receive().await?, &[])?;
            }
        }
        session.close().await
    }

    /// Deletes a node, whoever owns it; `false` if there is none.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn delete(&self, path: &str) -> io::Result<bool> {
        let mut session = self.session(None).await?;
        session.send(DELETE, &Bytes::default().text(path).int(-1)).await?;
        let deleted = allow(session.receive().await?, &[NO_NODE])?.is_some();
        session.close().await?;
        Ok(deleted)
    }

    /// Reads a node; `None` if there is none.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn get(&self, path: &str) -> io::Result<Option<Node>> {
        let mut session = self.session(None).await?;
        session.send(GET_DATA, &Bytes::default().text(path).flag(false)).await?;
        let answer = allow(session.receive().await?, &[NO_NODE])?;
        session.close().await?;
        answer.map(|answer| node(&answer)).transpose()
    }

    /// The names of a node's children, sorted; none if there is no such node.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn children(&self, path: &str) -> io::Result<Vec<String>> {
        let mut session = self.session(None).await?;
        session.send(GET_CHILDREN, &Bytes::default().text(path).flag(false)).await?;
        let answer = allow(session.receive().await?, &[NO_NODE])?;
        session.close().await?;
        let Some(answer) = answer else { return Ok(Vec::new()) };
        let mut rest = Reader(&answer);
        let mut names = Vec::new();
        for _ in 0..rest.int()? {
            names.push(String::from_utf8_lossy(rest.bytes()?).into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Leaves everybody these rights to a node: the sum of 1 to read it, 2 to write it, 4 and 8 to create and delete what
    /// is below it, and always that to change this.
    ///
    /// # Errors
    /// As [`put`](Self::put), or there is no such node.
    pub async fn permit(&self, path: &str, rights: i32) -> io::Result<()> {
        let mut session = self.session(None).await?;
        let acl = Bytes::default().text(path).int(1).int(rights | 16).text("world").text("anyone").int(-1);
        session.send(SET_ACL, &acl).await?;
        allow(session.receive().await?, &[])?;
        session.close().await
    }

    /// Ends the session of somebody else, with all nodes that it owns. ZooKeeper makes the password of a session of its
    /// number alone.
    ///
    /// # Errors
    /// As [`put`](Self::put), or there is no such session.
    pub async fn end_session(&self, session: i64) -> io::Result<()> {
        let mut known = false;
        // Its client may take it up again in the middle, and then our connection is closed before anything is heard: what
        // counts is that the server knows it no more.
        for _ in 0..100 {
            let closed = async { self.session(Some(session)).await?.close().await };
            match closed.await {
                Err(error) if !is_closed(&error) => return if known { Ok(()) } else { Err(error) },
                _ => known = true,
            }
        }
        Err(io::Error::other(format!("session {session:#x} goes on")))
    }

    /// Opens a session that does nothing, and holds its connection for as long as the server bears that: a minute, or
    /// its `maxSessionTimeout`.
    ///
    /// # Errors
    /// The server takes no more connections, or does not answer.
    pub async fn hold(&self) -> io::Result<Held> {
        Ok(Held { _session: self.session_for(None, i32::MAX).await? })
    }

    async fn session(&self, id: Option<i64>) -> io::Result<Session> {
        self.session_for(id, 10_000).await
    }

    async fn session_for(&self, id: Option<i64>, millis: i32) -> io::Result<Session> {
        let mut session = Session { stream: TcpStream::connect(self.addr).await? };
        let password = id.map_or([0; 16], password);
        let hello =
            Bytes::default().int(0).long(0).int(millis).long(id.unwrap_or(0)).bytes(&password).flag(false);
        session.write(&hello.0).await?;
        let answer = timeout(ANSWER, session.read()).await.map_err(io::Error::other)??;
        let mut rest = Reader(&answer);
        let _version = rest.int()?;
        let (_granted, granted) = (rest.int()?, rest.long()?);
        if granted == 0 || id.is_some_and(|id| id != granted) {
            return Err(io::Error::other(format!("ZooKeeper knows no session {id:x?}")));
        }
        Ok(session)
    }
}

/// As the server makes it: sixteen bytes of Java's generator of random numbers.
fn password(session: i64) -> [u8; 16] {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let mut seed = ((session ^ 0xB341_5C00).cast_unsigned() ^ MULTIPLIER) & MASK;
    let mut bytes = [0; 16];
    for four in bytes.chunks_exact_mut(4) {
        seed = seed.wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
        // The upper 32 of its 48 bits, the lowest byte first.
        four.copy_from_slice(&((seed >> 16) & 0xFFFF_FFFF).to_le_bytes()[..4]);
    }
    bytes
}

fn create(path: &str, data: &[u8]) -> Bytes {
    // Anybody may do anything with it; it is persistent.
    Bytes::default().text(path).bytes(data).int(1).int(31).text("world").text("anyone").int(0)
}

fn node(answer: &[u8]) -> io::Result<Node> {
    let mut rest = Reader(answer);
    let data = rest.bytes()?.to_vec();
    if rest.0.len() < STAT {
        return Err(short());
    }
    let created = rest.long()?;
    // Modified, both times, three versions.
    rest.take(3 * 8 + 3 * 4)?;
    Ok(Node { data, created, owner: rest.long()? })
}

/// An answer without its head, or `None` for one of the errors that may be.
fn allow((error, answer): (i32, Vec<u8>), allowed: &[i32]) -> io::Result<Option<Vec<u8>>> {
    match error {
        0 => Ok(Some(answer)),
        error if allowed.contains(&error) => Ok(None),
        error => Err(io::Error::other(format!("ZooKeeper answers with error {error}"))),
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer of ZooKeeper ends too soon")
}

/// A session that is held open.
#[derive(Debug)]
pub struct Held {
    _session: Session,
}

#[derive(Debug)]
struct Session {
    stream: TcpStream,
}

impl Session {
    async fn send(&mut self, kind: i32, request: &Bytes) -> io::Result<()> {
        let head = Bytes::default().int(1).int(kind);
        self.write(&[head.0, request.0.clone()].concat()).await
    }

    /// The error and the rest of the next answer.
    async fn receive(&mut self) -> io::Result<(i32, Vec<u8>)> {
        let mut answer = timeout(ANSWER, self.read()).await.map_err(io::Error::other)??;
        let mut rest = Reader(&answer);
        rest.take(4 + 8)?;
        let error = rest.int()?;
        answer.drain(..16);
        Ok((error, answer))
    }

    /// Ends the session, and not only the connection.
    async fn close(mut self) -> io::Result<()> {
        self.send(CLOSE_SESSION, &Bytes::default()).await?;
        match self.receive().await {
            // The server closes the connection too, at times before the answer is out.
            Err(error) if is_closed(&error) => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        let length = i32::try_from(message.len()).map_err(io::Error::other)?;
        self.stream.write_all(&[&length.to_be_bytes(), message].concat()).await
    }

    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.stream.read_i32().await?).map_err(io::Error::other)?;
        let mut message = vec![0; length];
        self.stream.read_exact(&mut message).await?;
        Ok(message)
    }
}

/// A message that is put together.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn int(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn long(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn flag(mut self, value: bool) -> Self {
        self.0.push(value.into());
        self
    }

    fn bytes(self, value: &[u8]) -> Self {
        let mut message = self.int(i32::try_from(value.len()).expect("a message has less than 2 GiB"));
        message.0.extend(value);
        message
    }

    fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }
}

/// A message that is taken apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> io::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into().map_err(|_| short())?))
    }

    fn long(&mut self) -> io::Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into().map_err(|_| short())?))
    }

    fn bytes(&mut self) -> io::Result<&'a [u8]> {
        // `null` has the length -1.
        let length = self.int()?;
        self.take(usize::try_from(length).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `new java.util.Random(42 ^ 0xB3415C00L).nextBytes(..)` makes.
    #[test]
    fn a_password_is_what_java_makes_of_the_number() {
        let expected =
            [0xc8, 0x13, 0xee, 0x49, 0x56, 0x20, 0xc3, 0xa6, 0x87, 0x94, 0xef, 0x27, 0xa2, 0x39, 0xe8, 0xa9];
        assert_eq!(password(42), expected);
    }
}
