//! What a pick costs, and a change of what is picked from, beside what others do: `picks FIGURES [--quick]`.
//!
//! Contestants take turns in short batches, and medians are compared. Allocations are counted, and instructions too where there
//! is valgrind, as the clock of a shared machine tells only so much.

mod allocations;
mod contestants;
mod instances;
mod instructions;
mod race;
mod updates;

#[allow(unexpected_cfgs, reason = "a registry by script, as the tests of the balancer have it")]
#[path = "../../../lb/tests/support/mod.rs"]
mod support;

use std::path::Path;

use callsign_bench_figures::{Figures, Result};
use tokio::runtime::{Builder, Runtime};

const SIZES: [usize; 3] = [3, 100, 10_000];
const USAGE: &str = "usage: picks FIGURES [--quick] | picks count WHO";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // Nobody on it has anything to do while others pick.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    match args[..] {
        ["count", who] => instructions::run(&runtime, who),
        [file] => all(&runtime, file, false),
        [file, "--quick"] => all(&runtime, file, true),
        _ => Err(USAGE.into()),
    }
}

fn all(runtime: &Runtime, file: &str, quick: bool) -> Result<()> {
    let mut figures = Figures::default();
    for size in SIZES {
        picks(runtime, size, if quick { 40 } else { 150 }, &mut figures)?;
    }
    instructions::measure(runtime, &mut figures)?;
    updates::measure(&mut figures, if quick { 40 } else { 200 })?;
    figures.write(Path::new(file))
}

fn picks(runtime: &Runtime, size: usize, rounds: usize, figures: &mut Figures) -> Result<()> {
    let contestants = contestants::all(runtime, size)?;
    for contestant in &contestants {
        let mut handle = (contestant.handle)(1);
        handle(2_000);
        let before = allocations::allocations();
        handle(10_000);
        let each = (allocations::allocations() - before) as f64 / 10_000.0;
        let case = format!("{size} instances");
        figures.count("allocations of a pick", &case, contestant.name, "", each);
    }
    for threads in [1, 2] {
        let able: Vec<_> = contestants.iter().filter(|contestant| contestant.threads >= threads).collect();
        let samples = race::race(&able, size, threads, rounds);
        let case = format!("{size} instances, {threads} threads");
        for (contestant, samples) in able.iter().zip(samples) {
            figures.add("pick", &case, contestant.name, "ns", &samples);
        }
    }
    Ok(())
}
