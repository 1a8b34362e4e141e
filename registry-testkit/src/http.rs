//! [`exchange`]: one request to a registry that speaks HTTP, past all client libraries.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The most that one exchange may take.
const ANSWER: Duration = Duration::from_secs(20);

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// All before the body.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Sends a request with some more lines of its head, each with its end, and reads the answer.
///
/// # Errors
/// No answer within 20 s, or none of HTTP.
pub async fn exchange(
    addr: SocketAddr,
    (method, path): (&str, &str),
    headers: &str,
    body: &[u8],
) -> io::Result<Answer> {
    // Version 1.0, so that the answer ends with the connection and comes in one piece.
    let head = format!("{method} {path} HTTP/1.0\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    let answer = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(ANSWER, answer).await.map_err(io::Error::other)??;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let (head, body) =
        end.map(|end| answer.split_at(end + 4)).ok_or_else(|| io::Error::other("no HTTP answer"))?;
    let (head, body) = (String::from_utf8_lossy(head).into_owned(), body.to_vec());
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP answer: {head}")))?;
    Ok(Answer { status, head, body })
}
