//! How soon a change is seen, and what it costs to see it: callsign's core and backend beside the bare client
//! library, etcd's own client in Go and Go kit, in one run against one real etcd. Prints a table of ratios.
//!
//! `cargo run --release` in this folder. A child process watches, each of the four in turn; this one writes, 200 ms
//! and more apart, and takes the times. What is counted is the time from the
//! sending of the write to the watcher's wake-up, the watcher's processor time, and the bytes it received.

mod measure;
mod watcher;

use std::error::Error;

/// Instances, and changes in each of the rounds.
const SIZES: [usize; 3] = [100, 1_000, 10_000];

fn main() -> Result<(), Box<dyn Error>> {
    use tokio::runtime::Builder;

    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // One thread, so that its processor time is the work and not the handing over.
        ["watch", how, address, service] => {
            Builder::new_current_thread().enable_all().build()?.block_on(watcher::run(how, address, service))
        }
        [] => {
            Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure::run(&SIZES))
        }
        _ => Err("usage: callsign-benches".into()),
    }
}
