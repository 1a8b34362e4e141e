//! The parent: starts the watchers, writes, and does the sums. Knows no registry.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use callsign_testkit::process::Program;
use callsign_testkit::proxy::Proxy;

use crate::Result;
use crate::figures::{Figures, Silent, Watcher};

/// Rounds in turn, and changes in each.
const ROUNDS: usize = 4;
const CHANGES: usize = 40;
/// Nobody is given more changes in a round once it has taken so long for those before.
const ENOUGH: Duration = Duration::from_secs(25);
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
                let measured = watch(&mut contest, who, &service, size, figures).await;
                told(&mut contest, figures, names[who], measured).await?;
            }
            eprintln!("{size} instances: round {} of {ROUNDS}", round + 1);
        }
        let row = |all: &[Figures; 4], what: &str, figure: fn(&Figures) -> f64| {
            let of = all.each_ref().map(figure);
            let shown = |n: f64| if n.is_finite() { format!("{n:.2}") } else { "-".to_owned() };
            let ratios = C::RATIOS.map(|(one, other)| shown(of[one] / of[other]));
            let of = of.map(shown);
            println!("| {size} | {what} | {} | {} |", of.join(" | "), ratios.join(" | "));
        };
        row(&all, "write to wake-up, p50 ms", |f| f.latency(0.5));
        row(&all, "write to wake-up, p90 ms", |f| f.latency(0.9));
        row(&all, "watcher's processor ms a change", Figures::cpu);
        row(&all, "first list, ms", Figures::listed);
        row(&all, "resident memory, MiB", |f| f.rss);
        for (who, figures) in all.iter_mut().enumerate() {
            let measured = bytes(&mut contest, who, &service, size, figures).await;
            told(&mut contest, figures, names[who], measured).await?;
            eprintln!("{size} instances: bytes of {}", names[who]);
        }
        row(&all, "bytes received a change", |f| f.bytes);
        row(&all, "changes timed", |f| f.latencies.len() as f64);
        row(&all, "not listed or seen within a minute", |f| f.failures as f64);
    }
    Ok(())
}

/// One who says nothing is left out of the figures, and not the others with it.
async fn told(
    contest: &mut impl Contest,
    figures: &mut Figures,
    who: &str,
    measured: Result<()>,
) -> Result<()> {
    match measured {
        Err(error) if error.is::<Silent>() => {
            eprintln!("{who}: {error}");
            figures.failures += 1;
            contest.undo().await.map(drop)
        }
        measured => measured,
    }
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
    let begun = Instant::now();
    for change in (0..CHANGES).take_while(|_| begun.elapsed() < ENOUGH) {
        let before = watcher.cpu()?;
        let sent = now()?;
        contest.change(service, size, change).await?;
        let seen = watcher.seen(sent).await?;
        into.latencies.push((seen - sent) as f64 / 1e6);
        pause(contest, &mut watcher).await?;
        into.cpu.push((watcher.cpu()? - before) as f64 / 1e6);
    }
    into.rss = watcher.rss()?;
    Ok(())
}

/// Until the next change. Who is still busy with the last one, or with its taking back, would be thought to see the next.
async fn pause<C: Contest>(contest: &mut C, watcher: &mut Watcher) -> Result<()> {
    tokio::time::sleep(C::APART).await;
    let sent = now()?;
    if contest.undo().await? {
        watcher.seen(sent).await?;
        tokio::time::sleep(C::APART).await;
    }
    Ok(())
}

/// Bytes that reach the watcher for one change.
async fn bytes<C: Contest>(
    contest: &mut C,
    who: usize,
    service: &str,
    size: usize,
    into: &mut Figures,
) -> Result<()> {
    let proxy = Proxy::start(contest.addr()).await?;
    let mut watcher = Watcher(contest.watch(who, proxy.addr(), service)?);
    watcher.listed().await?;
    tokio::time::sleep(SETTLED).await;
    let (before, begun, mut changes) = (proxy.bytes_down(), Instant::now(), 0);
    while changes < CHANGES && begun.elapsed() < ENOUGH {
        let sent = now()?;
        contest.change(service, size, changes).await?;
        watcher.seen(sent).await?;
        pause(contest, &mut watcher).await?;
        changes += 1;
    }
    into.bytes = (proxy.bytes_down() - before) as f64 / changes as f64;
    Ok(())
}
