//! Instructions of a call in the client, as callgrind counts them.

use std::net::SocketAddr;
use std::process::Command;

use callsign_bench_figures::{Figures, Result};
use tokio::runtime::Builder;

use crate::contestants;
use crate::server::Server;

/// What is around the calls is the same in both runs, near enough.
const CALLS: [u32; 2] = [200, 1_200];

/// Makes so many calls, and nothing else.
pub(crate) fn run(server: SocketAddr, who: &str, calls: usize) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let contestants = contestants::all(server).await?;
        let contestant = contestants.iter().find(|contestant| contestant.name == who);
        (contestant.ok_or("nobody has this name")?.calls)(calls).await.map(drop)
    })
}

/// Runs this program under callgrind, if there is one.
pub(crate) fn measure(server: &Server, figures: &mut Figures) -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("there is no valgrind: no instructions are counted");
        return Ok(());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for contestant in runtime.block_on(contestants::all(server.address))? {
        let [few, many] = CALLS.map(|calls| collected(server.address, contestant.name, calls));
        let each = (many? as f64 - few? as f64) / f64::from(CALLS[1] - CALLS[0]);
        figures.count("instructions of a call", "one at a time, one thread", contestant.name, "", each);
    }
    Ok(())
}

fn collected(server: SocketAddr, who: &str, calls: u32) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe()?);
    let output = command.args(["count", &server.to_string(), who, &calls.to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("callgrind failed: {said}").into());
    }
    let count = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("callgrind did not count: {said}").into())
}
