//! [`Guard`]: ends the command if this program is killed, which then can do nothing itself.
//!
//! It is this program once more, as a process of its own, which reads from a pipe that only the first one holds, until
//! that is gone. A parent-death signal would do without it, and needs either unsafe code or a program in between that
//! hides why a command cannot be started.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, Stdio};

/// The first argument of one; the second is the command's process id.
const ARGUMENT: &str = "--guard-of";

#[derive(Debug)]
pub(crate) struct Guard(Child);

impl Guard {
    /// Watches over a process that leads a process group.
    pub(crate) fn start(id: u32) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([ARGUMENT, &id.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Out of the terminal's reach: it must not end before this process.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map(Self)
    }

    /// The process has ended: there is nothing left to watch over.
    pub(crate) fn dismiss(mut self) {
        // Before the pipe is closed, which would call it to its work.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether this process is a guard; if so, it has done its work when this returns.
pub(crate) fn is_one() -> bool {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(ARGUMENT)) {
        return false;
    }
    if let Some(id) = arguments.next().and_then(|id| id.to_str()?.parse().ok()) {
        watch_over(id);
    }
    true
}

#[cfg(unix)]
fn watch_over(id: i32) {
    use std::io::Read;

    use rustix::process::{Pid, Signal, kill_process_group};
    let Some(group) = Pid::from_raw(id) else { return };
    let leader = Leader::of(group);
    // Nothing is ever written: it ends, or fails, when the other end is gone.
    let _ = io::stdin().read(&mut [0]);
    if leader.has_ended(false) {
        return;
    }
    let _ = kill_process_group(group, Signal::TERM);
    if !leader.has_ended(true) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

#[cfg(not(unix))]
fn watch_over(_: i32) {}

/// The process that leads the group, held on to so that another of the same id is never taken for it.
#[cfg(target_os = "linux")]
struct Leader(Option<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Leader {
    fn of(id: rustix::process::Pid) -> Self {
        Self(rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).ok())
    }

    /// Whether it has; with patience, whether it has within ten seconds.
    fn has_ended(&self, patience: bool) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        // None was to be had: there is no such process.
        let Some(leader) = &self.0 else { return true };
        let wait = Timespec { tv_sec: if patience { 10 } else { 0 }, tv_nsec: 0 };
        poll(&mut [PollFd::new(leader, PollFlags::IN)], Some(&wait)).is_ok_and(|ended| ended > 0)
    }
}

/// Elsewhere it is trusted not to have ended in the moment in which this program was killed.
#[cfg(all(unix, not(target_os = "linux")))]
struct Leader;

#[cfg(all(unix, not(target_os = "linux")))]
impl Leader {
    fn of(_: rustix::process::Pid) -> Self {
        Self
    }

    /// Not known; with patience it is left to end by itself.
    fn has_ended(&self, patience: bool) -> bool {
        patience
    }
}
