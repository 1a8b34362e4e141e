//! [`Proxy`]: a link that can fail. A TCP proxy inside the process, on a port of its own, between a client and a
//! real server.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
/// How long a patient link dials a server that does not listen.
const PATIENCE: Duration = Duration::from_secs(1);

/// Some of those who dial, who are at most sixty-four.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Few(u64);

impl Few {
    fn add(&mut self, dialler: usize) {
        self.0 |= 1 << dialler;
    }

    fn has(self, dialler: Option<usize>) -> bool {
        dialler.is_some_and(|dialler| self.0 & 1 << dialler != 0)
    }
}

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
    silenced: Few,
    /// Whether a server that does not listen is dialled again for a while.
    patient: bool,
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
            silenced: Few::default(),
            patient: false,
        }
    }

    async fn dial(self) -> io::Result<TcpStream> {
        let begun = Instant::now();
        loop {
            let dialled = TcpStream::connect(self.upstream).await;
            if dialled.is_ok() || !self.patient || begun.elapsed() > PATIENCE {
                return dialled;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn hears(&self, dialler: Option<usize>) -> bool {
        !self.silenced.has(dialler)
    }
}

/// Says who dials from the first address to the second, for a link that several use and that is to fail for one.
pub type Diallers = Arc<dyn Fn(SocketAddr, SocketAddr) -> Option<usize> + Send + Sync>;

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    open: AtomicUsize,
    /// Of those, how many are whose.
    open_of: Mutex<BTreeMap<usize, usize>>,
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
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), upstream, diallers).await
    }

    /// The same on an address that is known before.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub async fn at(addr: SocketAddr, upstream: SocketAddr, diallers: Diallers) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
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
        self.link.send_modify(|link| {
            *link = Link { patient: link.patient, ..Link::good(link.upstream, link.era) };
        });
    }

    /// From now on, and healed or not, whoever dials before the server listens waits for it a moment. A link cannot refuse
    /// whom the server would, as it has accepted by then: some try a refusal again, and take the reset for more than that.
    pub fn patient(&self) {
        self.link.send_modify(|link| link.patient = true);
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

    /// The same for one of those that dial, and whoever was silenced before; the others notice nothing.
    pub fn silence(&self, dialler: usize) {
        self.link.send_modify(|link| link.silenced.add(dialler));
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

    /// How many connections of one of those that dial are open now.
    #[must_use]
    pub fn open_of(&self, dialler: usize) -> usize {
        let open = self.counters.open_of.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&dialler).copied().unwrap_or(0)
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
struct Open(Arc<Counters>, Option<usize>);

impl Open {
    fn new(counters: Arc<Counters>, dialler: Option<usize>) -> Self {
        counters.open.fetch_add(1, Ordering::Relaxed);
        let open = Self(counters, dialler);
        open.count(|count| count + 1);
        open
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        let Some(dialler) = self.1 else { return };
        let mut open = self.0.open_of.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(dialler).or_default();
        *count = change(*count);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.count(|count| count - 1);
    }
}

async fn connection(
    mut client: TcpStream,
    dialler: Option<usize>,
    links: watch::Receiver<Link>,
    counters: Arc<Counters>,
) {
    let _open = Open::new(Arc::clone(&counters), dialler);
    let Link { era: born, refuse, .. } = *links.borrow();
    let server = async {
        if refuse {
            return None;
        }
        let mut links = links.clone();
        let link = *links.wait_for(|link| link.up && link.hears(dialler)).await.ok()?;
        link.dial().await.ok()
    };
    let mut resets = links.clone();
    let mut reset = pin!(resets.wait_for(|link| link.era != born));
    let server = tokio::select! {
        biased;
        _ = &mut reset => None,
        server = server => server,
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

/// Resolves when it is time. What is due at once waits for no timer: those are as coarse as a millisecond, which whoever asks
/// ten thousand times one after the other would feel.
async fn reached(due: Option<Instant>) {
    if let Some(due) = due.filter(|due| *due > Instant::now()) {
        sleep_until(due).await;
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
            () = reached(due), if due.is_some() => {
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
#[path = "proxy_tests.rs"]
mod tests;
