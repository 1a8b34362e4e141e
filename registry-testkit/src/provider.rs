//! [`Provider`]: what servers are run from, binaries of this machine or containers; [`Running`], one that was run.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::container::{Container, Engine, Image};
use crate::process::Process;
use crate::testbed;

/// What servers are run from. The environment says it, for all tests alike: `CALLSIGN_CONTAINERS` is `docker` or
/// `podman`, or is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Binaries of this machine, which `scripts/testbed` has got.
    Native,
    /// Containers of their official images.
    Containers(Engine),
}

impl Provider {
    /// That which the environment says.
    ///
    /// # Errors
    /// It names an engine that is not known.
    pub fn chosen() -> io::Result<Self> {
        match env::var("CALLSIGN_CONTAINERS").as_deref() {
            Err(_) | Ok("") => Ok(Self::Native),
            Ok("docker") => Ok(Self::Containers(Engine::Docker)),
            Ok("podman") => Ok(Self::Containers(Engine::Podman)),
            Ok(other) => {
                Err(io::Error::other(format!("CALLSIGN_CONTAINERS is {other:?}: docker or podman, or unset")))
            }
        }
    }

    /// A server's program: what `variable` names, or that of the testbed; in a container that of the image.
    ///
    /// # Errors
    /// There is none.
    pub fn program(self, server: &str, variable: &str) -> io::Result<PathBuf> {
        match self {
            Self::Native => testbed::find(server, variable),
            Self::Containers(_) => Ok(server.into()),
        }
    }

    /// Runs a program, with its data below `home` and what it prints in `log`.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(
        self,
        (program, arguments): (&Path, &[OsString]),
        image: &Image,
        home: &Path,
        log: File,
    ) -> io::Result<Running> {
        match self {
            Self::Native => {
                let mut command = Command::new(program);
                command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
                Process::spawn(&mut command).map(Running::Process)
            }
            Self::Containers(engine) => {
                Container::start(engine, image, (program, arguments), home, log).map(Running::Container)
            }
        }
    }
}

/// A server that was run. It ends when this is dropped.
#[derive(Debug)]
pub enum Running {
    /// A process of this machine.
    Process(Process),
    /// A container.
    Container(Container),
}

impl Running {
    /// Its process id.
    ///
    /// # Errors
    /// It has ended.
    pub fn id(&self) -> io::Result<u32> {
        match self {
            Self::Process(process) => Ok(process.id()),
            Self::Container(container) => container.id(),
        }
    }

    /// Freezes it.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> io::Result<()> {
        match self {
            Self::Process(process) => process.pause(),
            Self::Container(container) => container.pause(),
        }
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> io::Result<()> {
        match self {
            Self::Process(process) => process.resume(),
            Self::Container(container) => container.resume(),
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system does not say.
    pub fn try_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        match self {
            Self::Process(process) => process.try_ended(),
            Self::Container(container) => container.try_ended(),
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It does not within `within`.
    pub async fn stop(&mut self, within: Duration) -> io::Result<ExitStatus> {
        match self {
            Self::Process(process) => process.stop(within).await,
            Self::Container(container) => container.stop(within).await,
        }
    }
}
