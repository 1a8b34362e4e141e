//! Instructions of a call in the client, as callgrind counts them.

use std::net::SocketAddr;
use std::process::Command;

use callsign_bench_figures::{Figures, Result};
use tokio::runtime::{Builder, Runtime};

use crate::contestants::{self, Contestant};
use crate::server::Server;

const CALLS: u32 = 1_000;
/// What is counted.
const COUNTED: &str = "--toggle-collect=*instructions::counted*";

/// Makes so many calls and as many again, of which the latter are counted: what is done once is not.
pub(crate) fn run(server: SocketAddr, who: &str, calls: usize) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let contestants = runtime.block_on(contestants::all(server))?;
    let contestant = contestants.iter().find(|contestant| contestant.name == who);
    let contestant = contestant.ok_or("nobody has this name")?;
    runtime.block_on((contestant.calls)(calls))?;
    counted(&runtime, contestant, calls)
}

/// All that the client does runs in here: there is one thread.
#[inline(never)]
fn counted(runtime: &Runtime, contestant: &Contestant, calls: usize) -> Result<()> {
    runtime.block_on((contestant.calls)(calls)).map(drop)
}

/// Runs this program under callgrind, if there is one.
pub(crate) fn measure(server: &Server, figures: &mut Figures) -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("there is no valgrind: no instructions are counted");
        return Ok(());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for contestant in runtime.block_on(contestants::all(server.address))? {
        let each = collected(server.address, contestant.name, CALLS)? as f64 / f64::from(CALLS);
        figures.count("instructions of a call", "one at a time, one thread", contestant.name, "", each);
    }
    Ok(())
}

fn collected(server: SocketAddr, who: &str, calls: u32) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", COUNTED])
        .arg(std::env::current_exe()?);
    let output = command.args(["count", &server.to_string(), who, &calls.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("callgrind failed: {said}").into());
    }
    let count = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("callgrind did not count: {said}").into())
}
