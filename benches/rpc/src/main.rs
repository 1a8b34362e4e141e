//! What a gRPC call costs over loopback, to one server, beneath the same generated client: `rpc FIGURES [--quick]`.
//!
//! The server is a process of its own, so that what is measured is the client's. Contestants take turns in short batches.

mod contestants;
mod instructions;
mod raw;
mod server;

use std::path::Path;
use std::time::{Duration, Instant};

use callsign_bench_figures::{Figures, Result, process_time};
use tokio::runtime::{Builder, Runtime};

use crate::server::Server;

mod proto {
    tonic::include_proto!("bench");
}

const USAGE: &str = "usage: rpc FIGURES [--quick] | rpc serve | rpc count ADDRESS WHO CALLS";
/// Calls of a batch, messages of one, and tasks that share a channel.
const CALLS: usize = 500;
const MESSAGES: usize = 4_000;
const TASKS: usize = 64;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve"] => {
            Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(server::serve())
        }
        ["count", address, who, calls] => instructions::run(address.parse()?, who, calls.parse()?),
        [file] => all(file, false),
        [file, "--quick"] => all(file, true),
        _ => Err(USAGE.into()),
    }
}

fn all(file: &str, quick: bool) -> Result<()> {
    let server = Server::start()?;
    let mut figures = Figures::default();
    // All of the client on one thread, and as most programs have it.
    let rounds = if quick { 8 } else { 60 };
    let alone = Builder::new_current_thread().enable_all().build()?;
    one_by_one(&alone, &server, "one at a time, one thread", rounds, &mut figures)?;
    let threads = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    one_by_one(&threads, &server, "one at a time, two threads", rounds, &mut figures)?;
    many(&server, if quick { 3 } else { 15 }, &mut figures)?;
    instructions::measure(&server, &mut figures)?;
    figures.write(Path::new(file))
}

/// One call, or one stream, at a time.
fn one_by_one(
    runtime: &Runtime,
    server: &Server,
    case: &str,
    rounds: usize,
    figures: &mut Figures,
) -> Result<()> {
    let contestants = runtime.block_on(contestants::all(server.address))?;
    let mut batches: Vec<Vec<_>> = contestants.iter().map(|_| Vec::new()).collect();
    let mut streams: Vec<Vec<_>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for (at, contestant) in contestants.iter().enumerate() {
            // On the runtime's own threads, where most calls are made.
            let batch = runtime.block_on(runtime.spawn((contestant.calls)(CALLS)))??;
            let (begun, worked) = (Instant::now(), process_time());
            runtime.block_on(runtime.spawn((contestant.stream)(MESSAGES)))??;
            let work = (process_time() - worked).as_secs_f64() * 1e6 / MESSAGES as f64;
            let stream = (MESSAGES as f64 / begun.elapsed().as_secs_f64(), work);
            // The first round warms up.
            if round > 0 {
                batches[at].push(batch);
                streams[at].push(stream);
            }
        }
    }
    for ((contestant, batches), streams) in contestants.iter().zip(batches).zip(streams) {
        let who = contestant.name;
        let of = |figure: fn(&contestants::Calls) -> f64| batches.iter().map(figure).collect::<Vec<_>>();
        figures.add("work of a call", case, who, "us", &of(|batch| batch.work));
        figures.add("p50 of a call", case, who, "us", &of(|batch| batch.p50));
        figures.add("p99 of a call", case, who, "us", &of(|batch| batch.p99));
        let (rates, work): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
        figures.add("messages of a stream", case, who, "/s", &rates);
        figures.add("work of a message", case, who, "us", &work);
    }
    Ok(())
}

/// Many tasks on one channel, on two threads.
fn many(server: &Server, rounds: usize, figures: &mut Figures) -> Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let contestants = runtime.block_on(contestants::all(server.address))?;
    let mut samples: Vec<Vec<_>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for (contestant, samples) in contestants.iter().zip(&mut samples) {
            let (begun, worked) = (Instant::now(), process_time());
            let calls = runtime.block_on((contestant.tasks)(TASKS, Duration::from_millis(300)))? as f64;
            let work = (process_time() - worked).as_secs_f64() * 1e6 / calls;
            if round > 0 {
                samples.push((calls / begun.elapsed().as_secs_f64(), work));
            }
        }
    }
    for (contestant, samples) in contestants.iter().zip(samples) {
        let (rates, work): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
        let case = format!("{TASKS} tasks");
        figures.add("calls", &case, contestant.name, "/s", &rates);
        figures.add("work of a call", &case, contestant.name, "us", &work);
    }
    Ok(())
}
