//! Resources: registering and watching, over and over, uses no more of anything.
//!
//! What is counted belongs to the whole process, so that this runs in a test binary of its own, one at a time.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use callsign_core::Registry;
use tokio::time::timeout;

use super::watch::{SOON, tasks};
use super::{instance, service, tuning};
use crate::fixture::{Fixture, Tuning};
use crate::wait::{eventually, ok, until};

/// How much more memory the second half of all cycles may leave than the first: less than a hundredth of what a
/// leak of one task or one snapshot a cycle would be.
const RSS_SLACK: usize = 2 << 20;

/// Open files by what they are: sockets, pipes, files, and the rest.
fn open_files() -> HashMap<String, usize> {
    let mut count = HashMap::new();
    let links = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for target in links.filter_map(|link| std::fs::read_link(link.path()).ok()) {
        let target = target.to_string_lossy().into_owned();
        let sort = target.split_once(':').map_or("file", |(sort, _)| sort).to_owned();
        *count.entry(sort).or_default() += 1;
    }
    count
}

/// The memory of this process that is in use now, in bytes.
#[must_use]
pub fn rss() -> usize {
    status("VmRSS:")
}

/// The most that it ever was.
#[must_use]
pub fn peak() -> usize {
    status("VmHWM:")
}

fn status(key: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kilobytes.unwrap_or_else(|| panic!("no {key} in /proc/self/status")) * 1024
}

/// Each cycle waits for the publish interval, so that several run at a time.
const AT_A_TIME: u16 = 12;
const CYCLES: u16 = 100;
/// By then pools, caches and the allocator have what they need.
const WARM: u16 = 20;

/// 1,200 cycles of register, watch, see, leave; every tenth with a registry that is opened and closed for it.
pub async fn cycles(fixture: &impl Fixture) {
    let tuning = Tuning { drain: Some(Duration::ZERO), ..tuning(fixture) };
    let first = (tasks(), open_files());
    // What a client library keeps for the whole process, as a reactor of its own, is there from its first use on; a
    // connection is no such thing.
    let once = ok(fixture.open(&tuning), "open");
    cycle(fixture, &tuning, &once, 1).await;
    ok(once.close(Duration::from_secs(5)).await, "close");
    drop(once);
    let sockets = |files: &HashMap<String, usize>| files.get("socket").copied().unwrap_or(0);
    let closed = async || tasks() <= first.0 && sockets(&open_files()) <= sockets(&first.1);
    eventually(SOON, "the first connections are closed", closed).await;
    let before = (first.0, open_files());
    let registry = ok(fixture.open(&tuning), "open");
    let mut sizes = Vec::new();
    for round in 0..CYCLES {
        let mut at_a_time =
            pin!(all((0..AT_A_TIME).map(|n| cycle(fixture, &tuning, &registry, round * AT_A_TIME + n))));
        timeout(SOON, at_a_time.as_mut()).await.expect("a cycle hangs");
        if round >= WARM && round % 5 == 0 {
            sizes.push(rss());
        }
    }
    ok(registry.close(Duration::from_secs(5)).await, "close");
    drop(registry);
    eventually(SOON, "all tasks ended", async || tasks() <= before.0).await;
    let no_more = |sort: &String, count: &usize| *count <= before.1.get(sort).copied().unwrap_or(0);
    let flat = async || open_files().iter().all(|(sort, count)| no_more(sort, count));
    eventually(SOON, &format!("open files are {:?} again", before.1), flat).await;
    let growth = sizes.last().unwrap().saturating_sub(sizes[sizes.len() / 2]);
    assert!(growth <= RSS_SLACK, "memory grew by {growth} bytes in the second half: {sizes:?}");
}

async fn cycle(fixture: &impl Fixture, tuning: &Tuning, registry: &Registry, n: u16) {
    let own = n.is_multiple_of(10).then(|| ok(fixture.open(tuning), "open"));
    let (servers, service) = (own.as_ref().unwrap_or(registry), service());
    let mut watch = servers.watch(&service);
    let registration = ok(servers.register(instance(&service, n)).await, n);
    until(&mut watch, SOON, "seen", |s| s.len() == 1).await;
    match n % 3 {
        0 => ok(registration.deregister().await, n),
        1 => ok(registration.deregister_within(SOON).await, n),
        _ => drop(registration),
    }
    if let Some(own) = own {
        ok(own.close(Duration::from_secs(5)).await, n);
    }
}

/// Polls all of them, on this task, until each is done.
async fn all(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut left: Vec<_> = futures.map(Box::pin).collect();
    poll_fn(|context| {
        left.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if left.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
