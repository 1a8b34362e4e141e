//! Instructions of a pick, as callgrind counts them: they are the same however busy the machine is.

use std::process::Command;

use callsign_bench_figures::{Figures, Result};
use tokio::runtime::Runtime;

use crate::contestants::{self, Handle};

const SIZE: usize = 100;
const PICKS: u32 = 5_000;

/// Where callgrind begins to count, and ends.
#[inline(never)]
#[unsafe(no_mangle)]
fn counted_picks(handle: &mut Handle) {
    handle(PICKS);
}

/// Picks some thousand times, and nothing else that is counted.
pub(crate) fn run(runtime: &Runtime, who: &str) -> Result<()> {
    let contestants = contestants::all(runtime, SIZE)?;
    let contestant = contestants.iter().find(|contestant| contestant.name == who);
    let mut handle = (contestant.ok_or("nobody has this name")?.handle)(1);
    handle(1_000);
    counted_picks(&mut handle);
    Ok(())
}

/// Runs this program under callgrind, if there is one.
pub(crate) fn measure(runtime: &Runtime, figures: &mut Figures) -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("there is no valgrind: no instructions are counted");
        return Ok(());
    }
    for contestant in contestants::all(runtime, SIZE)? {
        let each = collected(contestant.name)? as f64 / f64::from(PICKS);
        figures.count("instructions of a pick", "100 instances", contestant.name, "", each);
    }
    Ok(())
}

fn collected(who: &str) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=counted_picks"]);
    let output = command.arg(std::env::current_exe()?).args(["count", who]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("callgrind failed: {said}").into());
    }
    let count = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.filter(|count| *count > 0).ok_or_else(|| format!("callgrind did not count: {said}").into())
}
