//! [`Container`]: a server in a container of its official image, which ends with this process however that ends.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{getgid, getuid};

use crate::process::Process;

/// How long a container may take from its start to its process.
const BEGINS: Duration = Duration::from_secs(10);

/// Makes the container, says so, and takes it away once the other end of its stdin is closed. One process for both, so
/// that a container cannot come into being after it was taken away, whenever its owner is killed.
const KEEPER: &str = r#"
trap '' INT TERM HUP PIPE
engine=$1 name=$2
shift 2
if said=$("$engine" create --name "$name" "$@" 2>&1 </dev/null); then
  echo
  read -r never
else
  echo "cannot make a container: $said"
fi
exec "$engine" rm --force --volumes "$name" >/dev/null 2>&1
"#;

/// Which command line runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `docker`.
    Docker,
    /// `podman`.
    Podman,
}

impl Engine {
    fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Runs the command line, and returns what it printed.
    ///
    /// # Errors
    /// It cannot be run, or fails; with what it said.
    pub fn run<S: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = S>) -> io::Result<String> {
        let output =
            Command::new(self.program()).args(arguments).stdin(Stdio::null()).output().map_err(|error| {
                io::Error::new(error.kind(), format!("cannot run {}: {error}", self.program()))
            })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{}: {}", self.program(), said.trim())))
    }
}

/// An image, and what a container of it reads.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    reads: Vec<PathBuf>,
}

impl Image {
    /// An image by its full name, with its tag.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), reads: Vec::new() }
    }

    /// Lets containers read a folder, which they see under the same path; what is replaced in it, they see replaced.
    #[must_use]
    pub fn reading(mut self, folder: &Path) -> Self {
        self.reads.push(folder.to_owned());
        self
    }
}

/// A container that runs, and is gone when this is dropped, and when this process ends in whatever way. It is in the
/// network of the machine, so that its ports are the machine's.
#[derive(Debug)]
pub struct Container {
    engine: Engine,
    name: String,
    keeper: Child,
    /// The command line, attached: it prints what the server prints, and ends with it.
    client: Process,
}

impl Container {
    /// Runs `program` of an image, as the user that runs the test, with `home` writable under the same path, and what
    /// it prints in `log`.
    ///
    /// # Errors
    /// There is no engine or no image, or the container cannot be made.
    pub fn start(
        engine: Engine,
        image: &Image,
        (program, arguments): (&Path, &[OsString]),
        home: &Path,
        log: File,
    ) -> io::Result<Self> {
        if !cfg!(target_os = "linux") {
            return Err(io::Error::other(
                "servers in containers are in the network of the machine, which takes Linux",
            ));
        }
        // It says whose it is, should any be left.
        let name = format!("callsign-test-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper", engine.program(), &name]);
        command.args(["--rm", "--label", "callsign-test", "--network", "host"]);
        let (user, group) = (getuid(), getgid());
        command.arg("--user").arg(format!("{}:{}", user.as_raw(), group.as_raw()));
        if engine == Engine::Podman && !user.is_root() {
            // Else that user of the container would be another one outside.
            command.arg("--userns=keep-id");
        }
        // Where SELinux is at work, the folders belong to no container.
        command.args(["--security-opt", "label=disable"]);
        command.arg("--volume").arg(volume(home, "rw"));
        for folder in &image.reads {
            command.arg("--volume").arg(volume(folder, "ro"));
        }
        command.arg("--entrypoint").arg(program).arg(&image.name).args(arguments);
        let mut keeper = command
            // Whatever ends the whole group of this process must not end what cleans up after it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Err(error) = made(&mut keeper) {
            let _ = keeper.wait();
            return Err(error);
        }
        let client = Process::spawn(
            Command::new(engine.program())
                .args(["start", "--attach", &name])
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log),
        );
        match client {
            Ok(client) => Ok(Self { engine, name, keeper, client }),
            Err(error) => {
                end(&mut keeper);
                Err(error)
            }
        }
    }

    /// The process id of the server. One that was just started has none for a moment, which is waited for.
    ///
    /// # Errors
    /// It does not run.
    #[expect(clippy::disallowed_methods, reason = "asking the engine blocks as well, and for as long")]
    pub fn id(&self) -> io::Result<u32> {
        let by = Instant::now() + BEGINS;
        loop {
            let said =
                self.engine.run(["inspect", "--format", "{{.State.Status}} {{.State.Pid}}", &self.name])?;
            match said.split_once(' ').map(|(status, id)| (status, id.parse().unwrap_or(0))) {
                Some(("created", _)) if Instant::now() < by => std::thread::sleep(Duration::from_millis(20)),
                Some((_, id)) if id != 0 => return Ok(id),
                _ => return Err(io::Error::other(format!("{} does not run", self.name))),
            }
        }
    }

    /// Freezes it.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.engine.run(["pause", &self.name]).map(drop)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is not paused.
    pub fn resume(&self) -> io::Result<()> {
        self.engine.run(["unpause", &self.name]).map(drop)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system does not say.
    pub fn try_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.client.try_ended()
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// It does not within `within`, or has ended.
    pub async fn stop(&mut self, within: Duration) -> io::Result<ExitStatus> {
        self.engine.run(["kill", "--signal", "TERM", &self.name])?;
        self.client.ended(within).await
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        end(&mut self.keeper);
    }
}

/// Waits until the keeper has made the container.
fn made(keeper: &mut Child) -> io::Result<()> {
    let mut said = BufReader::new(keeper.stdout.as_mut().ok_or_else(|| io::Error::other("not piped"))?);
    let mut failed = String::new();
    said.read_line(&mut failed)?;
    if failed == "\n" {
        return Ok(());
    }
    said.read_to_string(&mut failed)?;
    Err(io::Error::other(failed.trim().to_owned()))
}

/// Waits until the keeper has taken the container away.
fn end(keeper: &mut Child) {
    drop(keeper.stdin.take());
    let _ = keeper.wait();
}

fn volume(folder: &Path, mode: &str) -> OsString {
    let mut volume = OsString::from(folder);
    volume.extend([OsStr::new(":"), folder.as_os_str(), OsStr::new(":"), OsStr::new(mode)]);
    volume
}
