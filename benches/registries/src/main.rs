//! How soon a change is seen, and what it costs to see it: callsign's core and one backend beside the least that
//! anybody can do in the same language, the registry's own client in Go and Go kit, in one run against one real server.
//! Prints a table of ratios.
//!
//! `cargo run --release`, or with `-- consul` or `-- zk`, in this folder. A child process watches, each of the four in turn; this
//! one writes, further apart than anybody coalesces, and takes the times. What is counted is the time from the
//! sending of the write to the watcher's wake-up, the watcher's processor time, and the bytes it received.

mod consul;
mod etcd;
mod figures;
mod http;
mod measure;
mod watcher;
mod zk;

use std::error::Error;

use tokio::runtime::Builder;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Instances, and changes in each of the rounds.
const SIZES: [usize; 3] = [100, 1_000, 10_000];

const USAGE: &str = "usage: callsign-benches [etcd | consul | zk [INSTANCES...]]";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["watch", how, address, service] = args[..] {
        // One thread, so that its processor time is the work and not the handing over.
        return Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(watcher::run(how, address, service));
    }
    let (registry, sizes) = args.split_first().unwrap_or((&"etcd", &[]));
    let sizes = sizes.iter().map(|size| size.parse()).collect::<std::result::Result<Vec<_>, _>>()?;
    let sizes = if sizes.is_empty() { SIZES.to_vec() } else { sizes };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match *registry {
        "etcd" => runtime.block_on(etcd::run(&sizes)),
        "consul" => runtime.block_on(consul::run(&sizes)),
        "zk" => runtime.block_on(zk::run(&sizes)),
        _ => Err(USAGE.into()),
    }
}
