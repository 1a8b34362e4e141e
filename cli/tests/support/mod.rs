//! Runs the program as a user does, and reads what it says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "each test uses some of it"
)]

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use callsign_testkit::ports::Port;
use callsign_testkit::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A program that says its process id, what it listens on and which signals it gets, and ends by SIGTERM with 7.
const SERVER: &str = r#"
import os, signal, socket, sys, time
def end(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    sys.exit(7)
for name in "HUP", "USR1", "USR2", "QUIT":
    signal.signal(getattr(signal, "SIG" + name), lambda n, f: print("got", signal.Signals(n).name, flush=True))
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
print("pid", os.getpid(), flush=True)
if len(sys.argv) > 1:
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    time.sleep(60)
"#;

/// The command line of that program: serving at a port, or at none.
pub(crate) fn server(port: &str) -> Vec<&str> {
    let mut line = vec!["--", "python3", "-c", SERVER];
    line.extend(Some(port).filter(|port| !port.is_empty()));
    line
}

/// A registry in a directory of its own.
pub(crate) struct Directory(pub(crate) TempDir);

impl Directory {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("callsign-test-").tempdir().unwrap())
    }

    /// Its URL, with a query.
    pub(crate) fn url(&self, query: &str) -> String {
        format!("{}{query}", callsign::file::url(self.0.path()))
    }
}

/// A free port, as text.
pub(crate) fn free() -> (Port, String) {
    let port = Port::reserve().unwrap();
    let number = port.number().to_string();
    (port, number)
}

pub(crate) fn command(url: &str, args: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_callsign"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env("CALLSIGN_REGISTRY", url).env_remove("NO_COLOR");
    command
}

/// A command that hears SIGHUP, also where the tests themselves run under `nohup`, which is inherited.
fn program(path: &str) -> Command {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.map_or(0, |mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    if ignored & 1 == 0 {
        return Command::new(path);
    }
    // In its own place: the process is the same.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", path]);
    command
}

/// Runs it to its end.
pub(crate) async fn run(url: &str, args: &[&str]) -> Output {
    timeout(DEADLINE, command(url, args).output()).await.expect("ends in time").unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// One that runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) out: Lines<BufReader<ChildStdout>>,
    pub(crate) err: Lines<BufReader<ChildStderr>>,
}

impl Running {
    pub(crate) fn start(url: &str, args: &[&str]) -> Self {
        Self::of(command(url, args))
    }

    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, out, err }
    }

    /// The rest of the next line on stdout that begins so.
    pub(crate) async fn said(&mut self, begins: &str) -> String {
        line(&mut self.out, begins).await
    }

    /// The same on stderr.
    pub(crate) async fn noted(&mut self, begins: &str) -> String {
        line(&mut self.err, &format!("callsign: {begins}")).await
    }

    /// Why it failed.
    pub(crate) async fn failed(&mut self) -> String {
        line(&mut self.err, "error: ").await
    }

    /// The next JSON line for which `holds`.
    pub(crate) async fn json(&mut self, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let reading = async {
            loop {
                let line =
                    self.out.next_line().await.unwrap().unwrap_or_else(|| panic!("ended before {what}"));
                let value: Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if holds(&value) {
                    return value;
                }
            }
        };
        timeout(DEADLINE * 2, reading).await.unwrap_or_else(|_| panic!("never {what}"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.child.id().unwrap(), signal);
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        timeout(DEADLINE, self.child.wait()).await.expect("ends in time").unwrap()
    }

    /// The exit code it ends with; 128 and more for a signal.
    pub(crate) async fn code(&mut self) -> i32 {
        let status = self.ended().await;
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }
}

async fn line(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>, begins: &str) -> String {
    let mut before = Vec::new();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(rest) = line.strip_prefix(begins) {
                return Some(rest.to_owned());
            }
            before.push(line);
        }
        None
    };
    match timeout(DEADLINE * 2, reading).await {
        Ok(Some(rest)) => rest,
        Ok(None) => panic!("ended before {begins:?}: {before:#?}"),
        Err(_) => panic!("never {begins:?}: {before:#?}"),
    }
}

pub(crate) fn kill(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
}

/// Waits until a process is no more. A zombie has ended.
pub(crate) async fn gone(id: u32) {
    let alive = || {
        std::fs::read_to_string(format!("/proc/{id}/stat"))
            .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
    };
    eventually(DEADLINE, "the process is gone", async || !alive()).await;
}

/// The ids of the instances of a JSON line that its registry confirms.
pub(crate) fn confirmed(line: &Value) -> Vec<&str> {
    let all = line["instances"].as_array().unwrap();
    all.iter().filter(|one| one["held"] == false).map(|one| one["id"].as_str().unwrap()).collect()
}
