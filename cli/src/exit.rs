//! How the program ends: [`Failure`], and the exit codes, which scripts rely on.

use std::error::Error;
use std::io;

use callsign::ErrorKind;

/// Done, and nothing was refused.
pub(crate) const OK: u8 = 0;
/// Tried, and failed or refused by the registry.
pub(crate) const FAILED: u8 = 1;
/// Asked for something that cannot be.
pub(crate) const INPUT: u8 = 2;

/// What the exit codes mean, for `--help` and the man page.
pub(crate) const CODES: &str = "\
Exit codes:
  0  done
  1  it failed, or the registry cannot be reached or refuses it
  2  bad input: an argument, a URL, a command that cannot be started, a port that never accepts
  With a command, `register` ends with the command's own exit code, 128 + N if signal N ended it.";

/// Any error.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why the program ends before it has done what it was told.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Asked for something that cannot be.
    Input(BoxError),
    /// Tried, and failed.
    Failed(BoxError),
    /// Whoever read the output has gone: nothing is left to say, and nobody to say it to.
    Unread,
}

impl Failure {
    /// Bad input, in words.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into().into())
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Input(_) => INPUT,
            Self::Failed(_) => FAILED,
            Self::Unread => OK,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(error.into()),
        }
    }
}

/// What breaks a rule is bad input, wherever it is found out; the rest is between us and the registry.
impl From<callsign::Error> for Failure {
    fn from(error: callsign::Error) -> Self {
        if is_input(&error) { Self::Input(error.into()) } else { Self::Failed(error.into()) }
    }
}

/// Whether only another argument can mend it.
pub(crate) fn is_input(error: &callsign::Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported)
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    if let Some(error) = error.downcast_ref::<callsign::Error>() {
        return error.chain();
    }
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

/// What mends an error of the registry, where its message does not say that itself.
pub(crate) fn fix(error: &callsign::Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::Unauthenticated => Some(
            "check user and password, or the token: they stand in the URL, in the file that its password_file or \
             token_file names, or in the registry's environment variables",
        ),
        ErrorKind::PermissionDenied => Some("grant the user what was refused, or name a user who may"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_must_mend_it_decides_the_code() {
        let code = |kind| Failure::from(callsign::Error::new(kind, "x")).code();
        assert_eq!(code(ErrorKind::Invalid), 2);
        assert_eq!(code(ErrorKind::Unsupported), 2);
        for kind in [ErrorKind::Unavailable, ErrorKind::Unauthenticated, ErrorKind::PermissionDenied] {
            assert_eq!(code(kind), 1);
        }
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).code(), 0);
        assert_eq!(Failure::from(io::Error::other("x")).code(), 1);
    }
}
