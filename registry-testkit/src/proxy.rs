//! [`Proxy`]: a link that can fail. A TCP proxy inside the process, on a port of its own, between a client and a
//! real server.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// The most bytes on their way in one direction of one connection: what a network would hold.
const IN_FLIGHT: usize = 1 << 20;
const CHUNK: usize = 64 * 1024;

/// How bytes pass, in both directions of every connection.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Link {
    upstream: SocketAddr,
    /// Whether bytes pass from the client to the server.
    up: bool,
    /// Whether bytes pass from the server to the client.
    down: bool,
    /// Whether new connections are answered by a reset.
    refuse: bool,
    latency: Duration,
    bytes_per_second: Option<u64>,
    chunk: usize,
    /// Counts the resets: a connection of an older one ends by a reset.
    era: u64,
    /// Whose connections nothing passes on.
    silenced: Option<usize>,
}

impl Link {
    fn good(upstream: SocketAddr, era: u64) -> Self {
        Self {
            upstream,
            up: true,
            down: true,
            refuse: false,
            latency: Duration::ZERO,
            bytes_per_second: None,
            chunk: CHUNK,
            era,
            silenced: None,
        }
    }

    fn hears(&self, dialler: Option<usize>) -> bool {
        dialler.is_none() || self.silenced != dialler
    }
}

/// Says who dials from the first address to the second, for a link that several use and that is to fail for one.
pub type Diallers = Arc<dyn Fn(SocketAddr, SocketAddr) -> Option<usize> + Send + Sync>;

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    open: AtomicUsize,
    bytes_down: AtomicU64,
    bytes_up: AtomicU64,
}

/// A link to one server, good at first. It and all its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    link: watch::Sender<Link>,
    counters: Arc<Counters>,
    // Owns the accept loop, which owns the connections.
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A link to `upstream`, which need not accept connections yet.
    ///
    /// # Errors
    /// No port can be listened on.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        Self::for_diallers(upstream, Arc::new(|_, _| None)).await
    }

    /// The same for several that can be told apart. `diallers` is asked once for each connection, when it is accepted.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn for_diallers(upstream: SocketAddr, diallers: Diallers) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (link, links) = watch::channel(Link::good(upstream, 0));
        let counters = Arc::new(Counters::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, links, diallers, Arc::clone(&counters)));
        Ok(Self { addr, link, counters, _tasks: tasks })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Makes the link good again. Connections that were held up go on where they were.
    pub fn heal(&self) {
        self.link.send_modify(|link| *link = Link::good(link.upstream, link.era));
    }

    /// Leads to another server from now on, and resets what leads to the present one: so it looks when a server is
    /// replaced behind its address.
    pub fn redirect(&self, upstream: SocketAddr) {
        self.link.send_modify(|link| (link.upstream, link.era) = (upstream, link.era + 1));
    }

    /// Nothing passes any more, and nobody is told: existing connections fall silent, new ones are accepted and
    /// fall silent (half-open), as when a firewall drops packets.
    pub fn blackhole(&self) {
        self.link.send_modify(|link| (link.up, link.down) = (false, false));
    }

    /// The same for one of those that dial; the others notice nothing.
    pub fn silence(&self, dialler: usize) {
        self.link.send_modify(|link| link.silenced = Some(dialler));
    }

    /// Requests pass and answers do not: what is sent takes effect, and the sender never learns of it.
    pub fn drop_answers(&self) {
        self.link.send_modify(|link| link.down = false);
    }

    /// Resets all connections; new ones work.
    pub fn reset(&self) {
        self.link.send_modify(|link| link.era += 1);
    }

    /// Resets all connections, and new ones until [`heal`](Self::heal).
    pub fn cut(&self) {
        self.link.send_modify(|link| {
            link.refuse = true;
            link.era += 1;
        });
    }

    /// Everything arrives later, by `latency` in each direction.
    pub fn latency(&self, latency: Duration) {
        self.link.send_modify(|link| link.latency = latency);
    }

    /// At most this many bytes a second, in each direction of each connection.
    pub fn bandwidth(&self, bytes_per_second: u64) {
        self.link.send_modify(|link| link.bytes_per_second = Some(bytes_per_second.max(1)));
    }

    /// Passes everything in pieces of at most this many bytes.
    pub fn slice(&self, bytes: usize) {
        self.link.send_modify(|link| link.chunk = bytes.clamp(1, CHUNK));
    }

    /// How many connections there have been.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.counters.open.load(Ordering::Relaxed)
    }

    /// How many bytes the server has sent to clients.
    #[must_use]
    pub fn bytes_down(&self) -> u64 {
        self.counters.bytes_down.load(Ordering::Relaxed)
    }

    /// How many bytes clients have sent to the server.
    #[must_use]
    pub fn bytes_up(&self) -> u64 {
        self.counters.bytes_up.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    links: watch::Receiver<Link>,
    diallers: Diallers,
    counters: Arc<Counters>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, from)) => {
                    counters.accepted.fetch_add(1, Ordering::Relaxed);
                    let dialler = client.local_addr().ok().and_then(|to| diallers(from, to));
                    connections.spawn(connection(client, dialler, links.clone(), Arc::clone(&counters)));
                }
                // Out of file descriptors: some will come back.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(
    mut client: TcpStream,
    dialler: Option<usize>,
    links: watch::Receiver<Link>,
    counters: Arc<Counters>,
) {
    counters.open.fetch_add(1, Ordering::Relaxed);
    let _open = Open(Arc::clone(&counters));
    let Link { era: born, refuse, .. } = *links.borrow();
    let server = async {
        if refuse {
            return None;
        }
        let mut links = links.clone();
        let upstream = links.wait_for(|link| link.up && link.hears(dialler)).await.ok()?.upstream;
        TcpStream::connect(upstream).await.ok()
    };
    let mut resets = links.clone();
    let mut reset = pin!(resets.wait_for(|link| link.era != born));
    let server = tokio::select! {
        server = server => server,
        _ = &mut reset => None,
    };
    let Some(mut server) = server else {
        // Without it, closing would be an orderly end.
        let _ = client.set_zero_linger();
        return;
    };
    let broken = {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let up = |link: &Link| link.up && link.hears(dialler);
        let down = |link: &Link| link.down && link.hears(dialler);
        let pumps = async {
            tokio::try_join!(
                pump(client_reads, server_writes, links.clone(), up, &counters.bytes_up),
                pump(server_reads, client_writes, links.clone(), down, &counters.bytes_down),
            )
        };
        tokio::select! {
            ended = pumps => ended.is_err(),
            _ = &mut reset => true,
        }
    };
    if broken {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Passes one direction on until it ends, as the link allows at each moment.
async fn pump(
    mut reads: ReadHalf<'_>,
    mut writes: WriteHalf<'_>,
    mut links: watch::Receiver<Link>,
    passes: impl Fn(&Link) -> bool,
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut queue: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let (mut queued, mut ended) = (0, false);
    let mut buffer = vec![0; CHUNK];
    loop {
        let due = queue.front().map(|(due, _)| *due);
        if ended && due.is_none() {
            return writes.shutdown().await;
        }
        tokio::select! {
            read = reads.read(&mut buffer), if !ended && queued < IN_FLIGHT => {
                let bytes = &buffer[..read?];
                ended = bytes.is_empty();
                queued += bytes.len();
                if !ended {
                    let latency = links.borrow().latency;
                    queue.push_back((Instant::now() + latency, bytes.to_vec()));
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let (_, bytes) = queue.pop_front().unwrap_or((Instant::now(), Vec::new()));
                queued -= bytes.len();
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let link = match links.wait_for(&passes).await {
                        Ok(link) => *link,
                        // The proxy is gone.
                        Err(_) => return Ok(()),
                    };
                    let (now, later) = rest.split_at(rest.len().min(link.chunk));
                    writes.write_all(now).await?;
                    passed.fetch_add(now.len() as u64, Ordering::Relaxed);
                    if let Some(rate) = link.bytes_per_second {
                        sleep(Duration::from_secs_f64(now.len() as f64 / rate as f64)).await;
                    }
                    rest = later;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::eventually;

    /// A server that sends back what it gets.
    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut reads, mut writes) = stream.split();
                    let _ = io::copy(&mut reads, &mut writes).await;
                });
            }
        });
        (addr, tasks)
    }

    async fn ask(stream: &mut TcpStream, text: &str) -> io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        answer(stream, text.len()).await
    }

    async fn answer(stream: &mut TcpStream, len: usize) -> io::Result<String> {
        let mut back = vec![0; len];
        stream.read_exact(&mut back).await?;
        Ok(String::from_utf8(back).unwrap())
    }

    const SOON: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn silence_is_not_an_end_and_heals() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start(server).await.unwrap();
        let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(ask(&mut old, "a").await.unwrap(), "a");
        proxy.blackhole();
        assert!(tokio::time::timeout(SOON, ask(&mut old, "bc")).await.is_err());
        let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(tokio::time::timeout(SOON, ask(&mut new, "d")).await.is_err());
        proxy.heal();
        assert_eq!(answer(&mut old, 2).await.unwrap(), "bc");
        assert_eq!(answer(&mut new, 1).await.unwrap(), "d");
    }

    #[tokio::test]
    async fn one_is_silenced_and_the_other_is_not() {
        let (server, _tasks) = echo().await;
        // The first that comes is 0.
        let first = std::sync::OnceLock::new();
        let diallers: Diallers =
            Arc::new(move |from, _| Some(usize::from(*first.get_or_init(|| from) != from)));
        let proxy = Proxy::for_diallers(server, diallers).await.unwrap();
        let mut one = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(ask(&mut one, "a").await.unwrap(), "a");
        let mut other = TcpStream::connect(proxy.addr()).await.unwrap();
        proxy.silence(0);
        assert!(tokio::time::timeout(SOON, ask(&mut one, "b")).await.is_err());
        assert_eq!(ask(&mut other, "c").await.unwrap(), "c");
        proxy.heal();
        assert_eq!(answer(&mut one, 1).await.unwrap(), "b");
    }

    #[tokio::test]
    async fn a_cut_resets_old_and_new() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start(server).await.unwrap();
        let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
        ask(&mut old, "a").await.unwrap();
        proxy.cut();
        assert_eq!(old.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(new.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        proxy.heal();
        let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(ask(&mut new, "a").await.unwrap(), "a");
        proxy.reset();
        assert_eq!(new.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(ask(&mut new, "a").await.unwrap(), "a");
        drop(new);
        eventually(Duration::from_secs(5), "all connections ended", async || proxy.open() == 0).await;
        assert_eq!(proxy.accepted(), 4);
    }

    #[tokio::test]
    async fn leads_elsewhere() {
        let (first, tasks) = echo().await;
        let (second, _tasks) = echo().await;
        let proxy = Proxy::start(first).await.unwrap();
        let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
        ask(&mut old, "a").await.unwrap();
        proxy.redirect(second);
        assert_eq!(old.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        drop(tasks);
        let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(ask(&mut new, "b").await.unwrap(), "b");
    }

    #[tokio::test]
    async fn unanswered_requests_take_effect() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start(server).await.unwrap();
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        proxy.drop_answers();
        assert!(tokio::time::timeout(SOON, ask(&mut stream, "abc")).await.is_err());
        assert_eq!((proxy.bytes_up(), proxy.bytes_down()), (3, 0));
    }

    #[tokio::test]
    async fn slow_is_slow_and_whole() {
        let (server, _tasks) = echo().await;
        let proxy = Proxy::start(server).await.unwrap();
        proxy.latency(Duration::from_millis(60));
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        let start = Instant::now();
        assert_eq!(ask(&mut stream, "a").await.unwrap(), "a");
        assert!(start.elapsed() >= Duration::from_millis(120));
        proxy.latency(Duration::ZERO);
        proxy.bandwidth(10_000);
        proxy.slice(7);
        let (text, start) = ("x".repeat(2_000), Instant::now());
        assert_eq!(ask(&mut stream, &text).await.unwrap(), text);
        assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_server_that_is_down_resets_and_nothing_outlives_the_proxy() {
        let (server, tasks) = echo().await;
        drop(tasks);
        let proxy = Proxy::start(server).await.unwrap();
        let gone = async || TcpStream::connect(server).await.is_err();
        eventually(Duration::from_secs(5), "the server is gone", gone).await;
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        assert!(stream.read(&mut [0]).await.is_err());
        let addr = proxy.addr();
        drop(proxy);
        let gone = async || TcpStream::connect(addr).await.is_err();
        eventually(Duration::from_secs(5), "the proxy is gone", gone).await;
    }
}
