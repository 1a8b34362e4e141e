//! The parent: starts the watchers, writes, and does the sums. Knows no registry.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callsign_testkit::process::Program;
use callsign_testkit::proxy::Proxy;

use crate::Result;
use crate::figures::{Figures, Watcher};

/// Rounds in turn, and changes in each.
const ROUNDS: usize = 4;
const CHANGES: usize = 40;
/// Until a watcher that has listed is at rest.
const SETTLED: Duration = Duration::from_millis(500);

/// A server that runs, and who watches it.
pub(crate) trait Contest {
    /// Who watches, as the table calls them.
    const CONTESTANTS: [&'static str; 4];
    /// Whose figure is divided by whose.
    const RATIOS: [(usize, usize); 3];
    /// From one change to the next: more than anybody coalesces.
    const APART: Duration;

    fn addr(&self) -> SocketAddr;

    /// Registers so many instances.
    async fn fill(&mut self, service: &str, size: usize) -> Result<()>;

    /// Changes an instance, by the number of the change.
    async fn change(&mut self, service: &str, size: usize, n: usize) -> Result<()>;

    /// Takes the last change back, and says whether there was anything to take back. Nobody's time is taken by that.
    async fn undo(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// Runs a contestant as a child of its own.
    fn watch(&self, who: usize, address: SocketAddr, service: &str) -> Result<Program>;
}

/// Runs a watcher of this program's own.
pub(crate) fn own(how: &str, address: SocketAddr, service: &str) -> Result<Program> {
    let mut command = Command::new(std::env::current_exe()?);
    Ok(Program::spawn(command.args(["watch", how, &address.to_string(), service]))?)
}

pub(crate) async fn run<C: Contest>(mut contest: C, sizes: &[usize]) -> Result<()> {
    let names = C::CONTESTANTS;
    let ratios = C::RATIOS.map(|(one, other)| format!("{} / {}", names[one], names[other]));
    println!("| instances | | {} | {} |", names.join(" | "), ratios.join(" | "));
    println!("|---|---|---|---|---|---|---|---|---|");
    for &size in sizes {
        let service = format!("bench{size}");
        contest.fill(&service, size).await?;
        let mut all = names.map(|_| Figures::default());
        for round in 0..ROUNDS {
            // In turn, so that a machine whose speed drifts does not favour one.
            for (who, figures) in all.iter_mut().enumerate() {
                watch(&mut contest, who, &service, size, figures).await?;
            }
            eprintln!("{size} instances: round {} of {ROUNDS}", round + 1);
        }
        let row = |all: &[Figures; 4], what: &str, figure: fn(&Figures) -> f64| {
            let of = all.each_ref().map(figure);
            let ratios = C::RATIOS.map(|(one, other)| format!("{:.2}", of[one] / of[other]));
            let of = of.map(|figure| format!("{figure:.2}"));
            println!("| {size} | {what} | {} | {} |", of.join(" | "), ratios.join(" | "));
        };
        row(&all, "write to wake-up, p50 ms", |f| f.latency(0.5));
        row(&all, "write to wake-up, p90 ms", |f| f.latency(0.9));
        row(&all, "watcher's processor ms a change", Figures::cpu);
        row(&all, "first list, ms", Figures::listed);
        row(&all, "resident memory, MiB", |f| f.rss);
        for (who, figures) in all.iter_mut().enumerate() {
            figures.bytes = bytes(&mut contest, who, &service, size).await?;
        }
        row(&all, "bytes received a change", |f| f.bytes);
    }
    Ok(())
}

fn now() -> Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())
}

async fn watch<C: Contest>(
    contest: &mut C,
    who: usize,
    service: &str,
    size: usize,
    into: &mut Figures,
) -> Result<()> {
    let mut watcher = Watcher(contest.watch(who, contest.addr(), service)?);
    into.listed.push(watcher.listed().await?);
    tokio::time::sleep(SETTLED).await;
    for change in 0..CHANGES {
        let before = watcher.cpu()?;
        let sent = now()?;
        contest.change(service, size, change).await?;
        let seen = watcher.seen(sent).await?;
        into.latencies.push((seen - sent) as f64 / 1e6);
        pause(contest).await?;
        into.cpu.push((watcher.cpu()? - before) as f64 / 1e6);
    }
    into.rss = watcher.rss()?;
    Ok(())
}

/// Until the next change.
async fn pause<C: Contest>(contest: &mut C) -> Result<()> {
    tokio::time::sleep(C::APART).await;
    if contest.undo().await? {
        tokio::time::sleep(C::APART).await;
    }
    Ok(())
}

/// Bytes that reach the watcher for one change.
async fn bytes<C: Contest>(contest: &mut C, who: usize, service: &str, size: usize) -> Result<f64> {
    let proxy = Proxy::start(contest.addr()).await?;
    let mut watcher = Watcher(contest.watch(who, proxy.addr(), service)?);
    watcher.listed().await?;
    tokio::time::sleep(SETTLED).await;
    let before = proxy.bytes_down();
    for change in 0..CHANGES {
        let sent = now()?;
        contest.change(service, size, change).await?;
        watcher.seen(sent).await?;
        pause(contest).await?;
    }
    Ok((proxy.bytes_down() - before) as f64 / CHANGES as f64)
}
