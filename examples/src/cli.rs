//! What the three programs share: parsing, exit codes, and being told to end.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a program ends otherwise than with exit code 0.
#[derive(Debug)]
pub enum Failure {
    /// It was asked for something that cannot be: exit code 2.
    Input(BoxError),
    /// It was tried, and failed: exit code 1.
    Failed(BoxError),
    /// It failed, and that was said already: exit code 1.
    Said,
    /// Whoever read the output has gone: nothing is left to say, and nobody to say it to.
    Unread,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(error.into()),
        }
    }
}

/// Parses the arguments, runs a program on a runtime of its own, reports its failure, and makes its exit code.
pub fn main<A: Parser>(run: impl AsyncFnOnce(A) -> Result<(), Failure>) -> ExitCode {
    // Ends with exit code 2 and the reason if the arguments are wrong.
    let args = A::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            report(&error);
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(run(args));
    // A read from the terminal cannot be broken off, and is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match done {
        Ok(()) | Err(Failure::Unread) => ExitCode::SUCCESS,
        Err(Failure::Said) => ExitCode::FAILURE,
        Err(Failure::Failed(error)) => {
            report(&*error);
            ExitCode::FAILURE
        }
        Err(Failure::Input(error)) => {
            report(&*error);
            ExitCode::from(2)
        }
    }
}

/// Opens a registry. What is wrong with its URL is wrong with the input.
///
/// # Errors
/// [`Failure::Input`], as [`callsign::open()`] says.
pub fn open(url: &str) -> Result<callsign::Registry, Failure> {
    callsign::open(url).map_err(|error| Failure::Input(error.into()))
}

/// A line on stdout, out at once: others wait for it.
///
/// # Errors
/// It cannot be written.
pub fn say(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// A line on stderr.
pub fn warn(line: impl Display) {
    // If that cannot be written there is no way to say so.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// `error: ...` on stderr, with all causes.
pub fn report(error: &(dyn Error + 'static)) {
    warn(format_args!("error: {}", chain(error)));
}

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors print their causes themselves.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// Signals closer together than this are one: `timeout` and some shells send each twice.
const ONE: Duration = Duration::from_millis(300);

/// Hears the system say that the program is to end: SIGTERM or Ctrl-C.
#[derive(Debug)]
pub struct Signals {
    last: Option<Instant>,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            last: None,
            #[cfg(unix)]
            terminate: signal(SignalKind::terminate())?,
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt())?,
            #[cfg(windows)]
            interrupt: tokio::signal::windows::ctrl_c()?,
        })
    }

    /// The next word to end, also if it came between two calls. Cancel-safe.
    pub async fn next(&mut self) {
        loop {
            #[cfg(unix)]
            let terminate = self.terminate.recv();
            #[cfg(windows)]
            let terminate = std::future::pending::<Option<()>>();
            tokio::select! {
                _ = terminate => {}
                _ = self.interrupt.recv() => {}
            }
            let now = Instant::now();
            if self.last.replace(now).is_none_or(|last| now.duration_since(last) > ONE) {
                return;
            }
        }
    }
}
