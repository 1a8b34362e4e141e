//! The parent: starts etcd and the watchers, writes, and does the sums.

use std::error::Error;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callsign_testkit::etcd::{Etcd, Gateway};
use callsign_testkit::peers::Peer;
use callsign_testkit::process::Program;
use callsign_testkit::proxy::Proxy;
use callsign_testkit::server::Server;
use etcd_client::Client;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Rounds in turn, and changes in each.
const ROUNDS: usize = 4;
const CHANGES: usize = 40;
/// More than the 200 ms after which coalescing plays no part.
const APART: Duration = Duration::from_millis(220);

#[derive(Default)]
struct Figures {
    latencies: Vec<f64>,
    cpu: Vec<f64>,
    bytes: f64,
    listed: Vec<f64>,
    rss: f64,
}

impl Figures {
    fn latency(&self, quantile: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * quantile) as usize]
    }

    fn cpu(&self) -> f64 {
        let mut sorted = self.cpu.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// Who watches.
#[derive(Clone, Copy)]
enum Contestant {
    /// etcd's own client, in Go: the raw watch.
    Raw,
    /// The client library beneath callsign, bare.
    Bare,
    Callsign,
    GoKit,
}

use Contestant::{Bare, Callsign, GoKit, Raw};

const CONTESTANTS: [Contestant; 4] = [Raw, Bare, Callsign, GoKit];

impl Contestant {
    /// Runs it as a child of its own.
    fn watch(self, address: SocketAddr, service: &str) -> Result<Program> {
        let own = |how: &str| {
            let mut command = Command::new(std::env::current_exe()?);
            Program::spawn(command.args(["watch", how, &address.to_string(), service]))
        };
        Ok(match self {
            Raw => Peer::Raw.watch(address, service),
            Bare => own("bare"),
            Callsign => own("callsign"),
            GoKit => Peer::GoKit.watch(address, service),
        }?)
    }
}

pub async fn run(sizes: &[usize]) -> Result<()> {
    let mut server = Etcd::server()?;
    server.start().await?;
    println!(
        "| instances | | etcd's Go client | bare etcd-client | callsign | Go kit | callsign / Go client | callsign / bare | Go kit / Go client |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for &size in sizes {
        let service = format!("bench{size}");
        fill(&server, &service, size).await?;
        let mut all = CONTESTANTS.map(|_| Figures::default());
        for round in 0..ROUNDS {
            // In turn, so that a machine whose speed drifts does not favour one.
            for (who, figures) in CONTESTANTS.into_iter().zip(&mut all) {
                watch(&server, who, &service, size, figures).await?;
            }
            eprintln!("{size} instances: round {} of {ROUNDS}", round + 1);
        }
        for (who, figures) in CONTESTANTS.into_iter().zip(&mut all) {
            figures.bytes = bytes(&server, who, &service).await?;
        }
        let row = |what: &str, figure: fn(&Figures) -> f64| {
            let [raw, bare, callsign, gokit] = all.each_ref().map(figure);
            println!(
                "| {size} | {what} | {raw:.2} | {bare:.2} | {callsign:.2} | {gokit:.2} | {:.2} | {:.2} | {:.2} |",
                callsign / raw,
                callsign / bare,
                gokit / raw
            );
        };
        row("write to wake-up, p50 ms", |f| f.latency(0.5));
        row("write to wake-up, p90 ms", |f| f.latency(0.9));
        row("watcher's processor ms a change", Figures::cpu);
        row("bytes received a change", |f| f.bytes);
        row("first list, ms", |f| f.listed[0]);
        row("resident memory, MiB", |f| f.rss);
    }
    Ok(())
}

fn entry(service: &str, n: usize, weight: usize) -> (String, Vec<u8>) {
    let address = format!("10.{}.{}.{}:50051", n >> 16, (n >> 8) & 255, n & 255);
    let value = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":null,"callsign":{{"weight":{weight}}}}}"#);
    // With the slash, as Go kit has it; callsign reads both.
    (format!("/services/{service}/{address}"), value.into_bytes())
}

/// A weight that was never written: what changes nothing wakes nobody.
fn fresh() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1_000_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

async fn fill(server: &Server<Etcd>, service: &str, size: usize) -> Result<()> {
    let entries: Vec<_> = (1..=size).map(|n| entry(service, n, 2)).collect();
    let gateway = Gateway::new(server.addr());
    for chunk in entries.chunks(100) {
        gateway.put_many(chunk, 0).await?;
    }
    Ok(())
}

struct Watcher(Program);

impl Watcher {
    fn start(who: Contestant, address: SocketAddr, service: &str) -> Result<Self> {
        who.watch(address, service).map(Self)
    }

    async fn wait(&mut self, what: &str) -> Result<u128> {
        Ok(self.0.said(what, Duration::from_secs(20)).await.parse()?)
    }

    /// Nanoseconds on a processor so far, over all threads.
    fn cpu(&self) -> Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0.process.id()))? {
            let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
            sum += stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    fn rss(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse::<f64>()? / 1024.0)
    }
}

async fn watch(
    server: &Server<Etcd>,
    who: Contestant,
    service: &str,
    size: usize,
    into: &mut Figures,
) -> Result<()> {
    let mut watcher = Watcher::start(who, server.addr(), service)?;
    into.listed.push(watcher.wait("listed ").await? as f64 / 1000.0);
    let mut writer = Client::connect([server.addr().to_string()], None).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for change in 0..CHANGES {
        let (key, value) = entry(service, 1 + change * 7 % size, fresh());
        let before = watcher.cpu()?;
        let sent = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        writer.put(key, value, None).await?;
        let seen = watcher.wait("seen ").await?;
        into.latencies.push(seen.saturating_sub(sent) as f64 / 1e6);
        tokio::time::sleep(APART).await;
        into.cpu.push((watcher.cpu()? - before) as f64 / 1e6);
    }
    into.rss = watcher.rss()?;
    Ok(())
}

/// Bytes that reach the watcher for one change.
async fn bytes(server: &Server<Etcd>, who: Contestant, service: &str) -> Result<f64> {
    let proxy = Proxy::start(server.addr()).await?;
    let mut watcher = Watcher::start(who, proxy.addr(), service)?;
    watcher.wait("listed ").await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut writer = Client::connect([server.addr().to_string()], None).await?;
    let before = proxy.bytes_down();
    for change in 0..CHANGES {
        let (key, value) = entry(service, 1 + change, fresh());
        writer.put(key, value, None).await?;
        watcher.wait("seen ").await?;
        tokio::time::sleep(APART).await;
    }
    Ok((proxy.bytes_down() - before) as f64 / CHANGES as f64)
}
