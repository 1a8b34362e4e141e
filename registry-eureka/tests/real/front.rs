//! [`Front`]: what stands before a server, as an ingress does, and answers in its place or not as it would.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use callsign_testkit::http::exchange;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Does {
    Pass,
    Refuse(u16),
    /// The answer begins so much later.
    Late(Duration),
    /// The answer begins at once, and ends so much later.
    Slow(Duration),
}

/// A request that came, and the status of its answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
}

type Rule = Arc<dyn Fn(&str, &str) -> Does + Send + Sync>;

struct Shared {
    upstream: SocketAddr,
    rule: Mutex<Rule>,
    seen: Mutex<Vec<Seen>>,
}

pub(crate) struct Front {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Front {
    /// One that passes everything on.
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let rule: Mutex<Rule> = Mutex::new(Arc::new(|_, _| Does::Pass));
        let shared = Arc::new(Shared { upstream, rule, seen: Mutex::default() });
        let (mut tasks, shares) = (JoinSet::new(), Arc::clone(&shared));
        tasks.spawn(async move {
            let mut answering = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shares = Arc::clone(&shares);
                answering.spawn(async move { drop(shares.answer(stream).await) });
            }
        });
        Self { addr, shared, _tasks: tasks }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What is done from now on, by the method and the path below the base.
    pub(crate) fn does(&self, rule: impl Fn(&str, &str) -> Does + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Arc::new(rule);
    }

    /// What came since this was asked last.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.shared.seen.lock().unwrap())
    }
}

impl Shared {
    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = Vec::new();
        let (head, body) = loop {
            let mut some = [0; 4096];
            let read = stream.read(&mut some).await?;
            request.extend_from_slice(&some[..read]);
            let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                if read == 0 {
                    return Ok(());
                }
                continue;
            };
            let head = String::from_utf8_lossy(&request[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
            });
            let length: usize = length.unwrap_or(0);
            if request.len() >= end + 4 + length || read == 0 {
                break (head, request.split_off(end + 4));
            }
        };
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let below = path.trim_start_matches("/eureka/");
        let rule = Arc::clone(&*self.rule.lock().unwrap());
        let does = rule(method, below);
        let headers = "Accept: application/json\r\nContent-Type: application/json\r\n";
        let (status, body) = if let Does::Refuse(status) = does {
            (status, Vec::new())
        } else {
            let answer = exchange(self.upstream, (method, path), headers, &body).await?;
            (answer.status, answer.body)
        };
        let seen = Seen { method: method.to_owned(), path: below.to_owned(), status };
        self.seen.lock().unwrap().push(seen);
        if let Does::Late(time) = does {
            sleep(time).await;
        }
        let head = format!(
            "HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        if let Does::Slow(time) = does {
            let (first, rest) = body.split_at(body.len() / 2);
            stream.write_all(first).await?;
            sleep(time).await;
            return stream.write_all(rest).await;
        }
        stream.write_all(&body).await
    }
}
