//! [`Process`]: a child process that ends with this one, however this one ends; [`Program`]: one that says lines.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

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

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system does not say.
    pub fn try_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
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
            if let Some(status) = self.try_ended()? {
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

/// A process that is spoken with: what it prints is read line by line, and its stdin stays open until it is ended.
#[derive(Debug)]
pub struct Program {
    /// The process itself.
    pub process: Process,
    stdin: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Program {
    /// Starts it, with its stdin and stdout piped.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (stdin, stdout) = (process.child.stdin.take(), process.child.stdout.take());
        let (tell, lines) = mpsc::unbounded_channel();
        let stdout = stdout.ok_or_else(|| io::Error::other("its stdout is not piped"))?;
        // Read to its end, or the process could not print any more. The thread ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(io::Result::ok) {
                // Nobody may be listening any more.
                let _ = tell.send(line);
            }
        });
        Ok(Self { process, stdin, lines })
    }

    /// The rest of the next line that begins so; a test harness of its own may have printed before it on that line.
    ///
    /// # Panics
    /// There is none within `within`, or the process ends before.
    pub async fn said(&mut self, begins: &str, within: Duration) -> String {
        self.says(begins, within).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same where it is no fault of a test that there is none.
    ///
    /// # Errors
    /// There is none within `within`, or the process ends before.
    pub async fn says(&mut self, begins: &str, within: Duration) -> io::Result<String> {
        let found = timeout(within, async {
            while let Some(line) = self.lines.recv().await {
                if let Some((_, rest)) = line.split_once(begins) {
                    return Some(rest.to_owned());
                }
            }
            None
        });
        match found.await {
            Ok(Some(rest)) => Ok(rest),
            Ok(None) => Err(io::Error::other(format!("it ended before {begins:?}"))),
            Err(_) => Err(io::Error::other(format!("not within {within:?}: {begins:?}"))),
        }
    }

    /// Ends its stdin, which some programs take for the word to end.
    pub fn end_stdin(&mut self) {
        self.stdin = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::eventually;

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
            .args(["--exact", "process::tests::dies_with_its_killed_parent", "--nocapture"])
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

    #[tokio::test]
    async fn says_lines_and_ends_with_its_stdin() {
        let script = "echo one 1; echo two 2; cat >/dev/null; echo three 3";
        let mut program = Program::spawn(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(program.said("two ", SOON).await, "2");
        program.end_stdin();
        assert_eq!(program.said("three ", SOON).await, "3");
        assert!(program.process.ended(SOON).await.unwrap().success());
    }

    #[tokio::test]
    #[should_panic(expected = "it ended before \"more \"")]
    async fn that_it_ended_is_no_silence() {
        let mut program = Program::spawn(Command::new("sh").args(["-c", "echo one"])).unwrap();
        program.said("more ", SOON).await;
    }

    const SOON: Duration = Duration::from_secs(10);
}
