//! [`Command`]: a program that serves at the address that is registered, as a child of this one.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::{ExitStatus, Stdio};

use tokio::process::Child;

use crate::escape::Escaped;
use crate::exit::{FAILED, Failure};
use crate::guard::Guard;
use crate::output::note;
use crate::signals::Signal;

/// A command that runs. It is in a process group of its own, so that a Ctrl-C at the terminal does not reach it before
/// it has left the registry.
#[derive(Debug)]
pub(crate) struct Command {
    name: String,
    child: Child,
    guard: Option<Guard>,
}

impl Command {
    /// Starts it.
    pub(crate) fn start(line: &[OsString]) -> Result<Self, Failure> {
        let Some((program, arguments)) = line.split_first() else {
            return Err(Failure::input(
                "no command stands behind `--`: write `-- COMMAND ARGUMENT...`, or leave it out",
            ));
        };
        let mut command = std::process::Command::new(program);
        command.args(arguments);
        // A group that is not in the foreground is stopped for reading from the terminal.
        if io::stdin().is_terminal() {
            command.stdin(Stdio::null());
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let name = program.to_string_lossy().into_owned();
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
        let child = child.map_err(|error| Failure::input(cannot_start(&name, &error)))?;
        let guard = child.id().and_then(|id| {
            Guard::start(id)
                .inspect_err(|error| {
                    note(format_args!("{name} would outlive this program, were that killed: {error}"));
                })
                .ok()
        });
        Ok(Self { name, child, guard })
    }

    /// What people call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Passes a signal on to it and to what it has started. Nothing, if it has ended.
    #[cfg(unix)]
    pub(crate) fn pass(&self, signal: Signal) {
        use rustix::process::{Pid, kill_process_group};
        // It has an id until its end has been heard of, and until then nobody else can have that.
        let group = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let passed = group.map(|group| kill_process_group(group, signal));
        if let Some(Err(error)) = passed.filter(|passed| *passed != Err(rustix::io::Errno::SRCH)) {
            note(format_args!("cannot pass a signal on to {}: {error}", self.name));
        }
    }

    /// Ends it, which is all that can be done here.
    #[cfg(not(unix))]
    pub(crate) fn pass(&mut self, _: Signal) {
        if let Err(error) = self.child.start_kill() {
            note(format_args!("cannot end {}: {error}", self.name));
        }
    }

    /// Waits for its end, and returns the exit code that says how it ended. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> u8 {
        let code = match self.child.wait().await {
            Ok(status) => code(status),
            Err(error) => {
                note(format_args!("cannot tell how {} ended: {error}", self.name));
                FAILED
            }
        };
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
        code
    }
}

/// As shells say it.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(128 + signal).unwrap_or(FAILED);
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

fn cannot_start(name: &str, error: &io::Error) -> String {
    let rule = match error.kind() {
        io::ErrorKind::NotFound => {
            "a command is a program in the PATH or the path of one, and has no shell around it: \
                                    check the name, or write `-- sh -c '...'`"
        }
        io::ErrorKind::PermissionDenied => {
            "a command is a file that may be executed: make it so by `chmod +x`"
        }
        _ => "a command is a program that this machine can run: check the file",
    };
    format!("cannot start the command {:?}: {error}: {rule}", Escaped(name).to_string())
}
