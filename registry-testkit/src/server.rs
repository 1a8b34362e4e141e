//! [`Server`]: a real server process, which can be killed, paused, wiped and started again on the same port.
//!
//! It ends with the test: when the handle is dropped, also by a panic, and when the test process itself is
//! killed, by a reaper that waits for that.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::ports::Port;

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(60);
/// How long a server may take to end once it was asked to.
const STOP: Duration = Duration::from_secs(20);

/// A kind of server: how to run it, and how to see that it answers.
#[async_trait]
pub trait Kind: Debug + Send + Sync + 'static {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// The program and its arguments: to serve on `port`, with a second port for whatever it wants one for,
    /// keeping its data in `data`, a folder that exists and is empty at first.
    fn command(&self, port: u16, second: u16, data: &Path) -> (PathBuf, Vec<OsString>);

    /// Whether it serves at `addr` by now.
    async fn answers(&self, addr: SocketAddr) -> bool;
}

/// One server on a port of its own, with its data in a temporary folder. Not running at first.
#[derive(Debug)]
pub struct Server<K> {
    kind: K,
    port: Port,
    second: Port,
    home: TempDir,
    wipes: u32,
    process: Option<Process>,
}

impl<K: Kind> Server<K> {
    /// Reserves what a server needs; starts nothing.
    ///
    /// # Errors
    /// No free port, or no temporary folder.
    pub fn new(kind: K) -> io::Result<Self> {
        Self::on(kind, Port::reserve()?, Port::reserve()?)
    }

    /// The same on ports that were reserved before, for servers that must know each other's.
    ///
    /// # Errors
    /// No temporary folder.
    pub fn on(kind: K, port: Port, second: Port) -> io::Result<Self> {
        let home = tempfile::Builder::new().prefix("callsign-test-").tempdir()?;
        Ok(Self { kind, port, second, home, wipes: 0, process: None })
    }

    /// Where it serves, while it does.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Whether a process runs; a paused one does.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts it on the data it has, and waits until it answers. Nothing, if it runs.
    ///
    /// # Errors
    /// It cannot be started, ended at once, or does not answer within a minute; with the end of its log.
    pub async fn start(&mut self) -> io::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        self.launch()?;
        self.ready().await
    }

    /// Waits until what was [launched](Self::launch) answers.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn ready(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while !self.kind.answers(self.addr()).await {
            let ended = self.process.as_mut().map_or(Ok(None), |process| process.child.try_wait())?;
            if ended.is_some() || start.elapsed() > START {
                self.process = None;
                let how = ended.map_or("did not answer".to_owned(), |status| format!("ended by {status}"));
                return Err(io::Error::other(format!(
                    "{} {how}; its log ends in:\n{}",
                    self.kind.name(),
                    self.log()
                )));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Starts the process and does not wait for it to answer.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch(&mut self) -> io::Result<()> {
        let data = self.data();
        std::fs::create_dir_all(&data)?;
        let (program, arguments) = self.kind.command(self.port.number(), self.second.number(), &data);
        let log = File::options().create(true).append(true).open(self.home.path().join("log"))?;
        let mut command = Command::new(&program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn(&mut command)
            .map_err(|error| io::Error::other(format!("cannot run {}: {error}", program.display())))?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it with no warning, as a crash does. Its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to end, and waits until it has. Its data stays.
    ///
    /// # Errors
    /// It does not end within 20 s; it is killed then.
    pub async fn stop(&mut self) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.stop(STOP).await.map(drop)
    }

    /// Freezes it: it keeps its connections, accepts new ones, and answers nothing.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    /// Kills it and takes its data away: the next start is a first start, on the same port.
    pub fn wipe(&mut self) {
        self.kill();
        // Not removed now: a large folder takes its time, and it all goes in the end.
        self.wipes += 1;
    }

    /// Kills it and starts it again on the same data.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> io::Result<()> {
        self.kill();
        self.start().await
    }

    /// Its process id.
    ///
    /// # Errors
    /// It does not run.
    pub fn id(&self) -> io::Result<u32> {
        self.running().map(Process::id)
    }

    /// The last lines of what it printed.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.home.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The folder of its present data.
    fn data(&self) -> PathBuf {
        self.home.path().join(format!("data{}", self.wipes))
    }

    fn running(&self) -> io::Result<&Process> {
        let name = self.kind.name();
        self.process.as_ref().ok_or_else(|| io::Error::other(format!("{name} does not run")))
    }
}

/// A child process that is killed when this is dropped, and when this process ends in whatever way.
#[derive(Debug)]
pub struct Process {
    child: Child,
    reaper: Child,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// It, or its reaper, cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        // The reaper holds one end of a pipe whose other end only this process has: it reads until this process
        // is gone. Unlike a parent-death signal it does not mind which thread has started the child.
        let reaper = Command::new("sh")
            .args(["-c", "trap '' INT TERM HUP; read -r never; kill -9 \"$1\" 2>/dev/null", "reaper"])
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match reaper {
            Ok(reaper) => Ok(Self { child, reaper }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its end of what it prints, where that is piped; once.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Freezes it.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    /// It has ended.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It does not within `within`.
    pub async fn stop(&mut self, within: Duration) -> io::Result<ExitStatus> {
        self.terminate()?;
        self.ended(within).await
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not within `within`.
    pub async fn ended(&mut self, within: Duration) -> io::Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > within {
                return Err(io::Error::other(format!("process {} did not end within {within:?}", self.id())));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        // Not waited for yet, so that the id cannot be another's by now.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.ok_or_else(|| io::Error::other("not a process id"))?, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The reaper first: once the child has been waited for, its id may become another's.
        let _ = self.reaper.kill();
        let _ = self.reaper.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::eventually;
    use std::io::{BufRead, BufReader};

    fn alive(pid: u32) -> bool {
        // A zombie has ended.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
    }

    #[test]
    fn dropped_is_dead_even_when_paused() {
        let process = Process::spawn(Command::new("sleep").arg("600")).unwrap();
        let (child, reaper) = (process.id(), process.reaper.id());
        assert!(alive(child));
        process.pause().unwrap();
        drop(process);
        assert!(!alive(child) && !alive(reaper));
    }

    #[tokio::test]
    async fn stops_when_asked() {
        let mut process = Process::spawn(Command::new("sleep").arg("600")).unwrap();
        assert!(!process.stop(Duration::from_secs(5)).await.unwrap().success());
    }

    /// This test binary is started again, starts a process, says which, and is killed.
    #[tokio::test]
    async fn dies_with_its_killed_parent() {
        const CHILD: &str = "CALLSIGN_TESTKIT_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let process = Process::spawn(Command::new("sleep").arg("600")).unwrap();
            println!("\nstarted {}", process.id());
            sleep(Duration::from_secs(600)).await;
        }
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server::tests::dies_with_its_killed_parent", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let started =
            lines.map_while(Result::ok).find_map(|line| line.strip_prefix("started ")?.parse().ok());
        let grandchild: u32 = started.unwrap();
        assert!(alive(grandchild));
        parent.kill().unwrap();
        parent.wait().unwrap();
        eventually(Duration::from_secs(5), "the grandchild is dead", async || !alive(grandchild)).await;
    }
}
