//! Where things are said: results on stdout, everything else on stderr.

use std::fmt::{self, Display};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use crate::escape::Escaped;
use crate::exit::{Failure, chain, fix};

/// Stdout, in pieces large enough for a line of 10,000 instances. Flush it: others wait for it.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 * 1024, io::stdout().lock())
}

/// A line on stderr.
pub(crate) fn note(line: impl Display) {
    // If that cannot be written there is no way to say so.
    let _ = writeln!(io::stderr().lock(), "callsign: {}", Escaped(&line.to_string()));
}

/// Says why the program ends, and what mends it.
pub(crate) fn report(failure: &Failure) {
    let (Failure::Input(error) | Failure::Failed(error)) = failure else { return };
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "error: {}", Escaped(&chain(&**error)));
    if let Some(fix) = error.downcast_ref().and_then(fix) {
        let _ = writeln!(err, "fix: {fix}");
    }
}

/// Whether stdout is a terminal that can be drawn on.
pub(crate) fn is_screen() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Colours,
}

/// What a colour means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Nothing special.
    None,
    /// As it should be.
    Good,
    /// Passing, or not quite certain.
    Unsure,
    /// Wrong.
    Bad,
    /// What heads a table.
    Head,
}

impl Style {
    /// Colours on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if is_screen() && !refused { Self::Colours } else { Self::Plain }
    }

    /// A text in a colour.
    pub(crate) fn paint<T: Display>(self, paint: Paint, text: T) -> Painted<T> {
        Painted { paint: if self == Self::Colours { paint } else { Paint::None }, text }
    }
}

/// A text in a colour.
#[derive(Debug)]
pub(crate) struct Painted<T> {
    paint: Paint,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match self.paint {
            Paint::None => return self.text.fmt(f),
            Paint::Good => 32,
            Paint::Unsure => 33,
            Paint::Bad => 31,
            Paint::Head => 1,
        };
        write!(f, "\x1b[{code}m{}\x1b[0m", self.text)
    }
}

/// Lines and columns of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Size {
    /// Of the terminal that stdout is; that of old where it does not say.
    pub(crate) fn of_stdout() -> Self {
        #[cfg(unix)]
        if let Ok(size) = rustix::termios::tcgetwinsize(io::stdout())
            && size.ws_row > 0
            && size.ws_col > 0
        {
            return Self { rows: size.ws_row.into(), columns: size.ws_col.into() };
        }
        Self { rows: 24, columns: 80 }
    }
}

/// Resolves when whoever reads stdout has gone, also while there is nothing to print: `watch ... | head -1` is not to
/// wait for the next change.
pub(crate) async fn unread() {
    #[cfg(unix)]
    {
        let (tell, told) = tokio::sync::oneshot::channel();
        // It ends with the process: a wait for the system cannot be broken off.
        let waiting = std::thread::Builder::new().name("unread".to_owned()).spawn(move || {
            if wait_for_hangup() {
                let _ = tell.send(());
            }
        });
        if waiting.is_ok() && told.await.is_ok() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(unix)]
fn wait_for_hangup() -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let out = io::stdout();
    loop {
        let mut fds = [PollFd::new(&out, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) => return fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_colours_where_none_are_wanted() {
        assert_eq!(Style::Plain.paint(Paint::Bad, "x").to_string(), "x");
        assert_eq!(Style::Colours.paint(Paint::Bad, "x").to_string(), "\x1b[31mx\x1b[0m");
        assert_eq!(Style::Colours.paint(Paint::None, "x").to_string(), "x");
    }
}
