//! What became of a call that [`Retry`](super::Retry) gave up: every attempt, with its instance and its error.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use callsign_core::Instance;

use crate::error::{PickError, chain, is_never_sent};

/// Why one attempt failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttemptError<X> {
    /// There was no endpoint to try, so nothing was sent.
    NoEndpoint(PickError),
    /// The call failed.
    Failed(X),
    /// The call was given up after this time; the server may have carried it out.
    TimedOut(Duration),
}

impl<X> AttemptError<X> {
    /// Whether the attempt was never sent, where `judge` says it of the caller's own error. For errors that are no
    /// `std::error::Error` themselves, as a boxed one:
    ///
    /// ```
    /// use callsign_lb::{AttemptError, BoxError, is_never_sent};
    ///
    /// let when = |failed: &AttemptError<BoxError>| failed.is_never_sent_by(|error| is_never_sent(&**error));
    /// assert!(!when(&AttemptError::Failed("reset".into())));
    /// ```
    #[must_use]
    pub fn is_never_sent_by(&self, judge: impl FnOnce(&X) -> bool) -> bool {
        match self {
            Self::NoEndpoint(_) => true,
            Self::Failed(error) => judge(error),
            Self::TimedOut(_) => false,
        }
    }
}

impl<X: StdError + 'static> AttemptError<X> {
    /// Whether the attempt [was never sent](is_never_sent).
    #[must_use]
    pub fn is_never_sent(&self) -> bool {
        self.is_never_sent_by(|error| is_never_sent(error))
    }
}

impl<X: fmt::Display> fmt::Display for AttemptError<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEndpoint(error) => error.fmt(f),
            Self::Failed(error) => error.fmt(f),
            Self::TimedOut(after) => write!(f, "no answer within {after:?}"),
        }
    }
}

impl<X: StdError + 'static> StdError for AttemptError<X> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::NoEndpoint(error) => error.source(),
            Self::Failed(error) => error.source(),
            Self::TimedOut(_) => None,
        }
    }
}

/// One attempt that failed.
#[derive(Debug)]
pub struct Attempt<X> {
    pub(super) instance: Option<Arc<Instance>>,
    pub(super) error: AttemptError<X>,
}

impl<X> Attempt<X> {
    /// The instance that was tried; `None` if there was none to try.
    #[must_use]
    pub fn instance(&self) -> Option<&Arc<Instance>> {
        self.instance.as_ref()
    }

    /// Why it failed.
    #[must_use]
    pub fn error(&self) -> &AttemptError<X> {
        &self.error
    }
}

impl<X: fmt::Display> fmt::Display for Attempt<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instance {
            Some(instance) => write!(f, "{}: {}", instance.address(), self.error),
            None => self.error.fmt(f),
        }
    }
}

/// Why a call was given up; [`attempts`](Self::attempts) has them all. Its source is the error of the last attempt that
/// may have been sent, so that nobody takes the call for one that never was; if there was none, that of the last.
#[derive(Debug)]
#[non_exhaustive]
pub enum RetryError<X> {
    /// The time for all attempts together was up.
    #[non_exhaustive]
    DeadlineExceeded {
        /// That time.
        timeout: Duration,
        /// What was tried, in order.
        attempts: Vec<Attempt<X>>,
    },
    /// The last attempt failed, and was either the last one allowed or not to be repeated.
    #[non_exhaustive]
    Failed {
        /// What was tried, in order.
        attempts: Vec<Attempt<X>>,
    },
    /// The last attempt failed and could be repeated, but the [budget](super::Budget) of repeats is used up.
    #[non_exhaustive]
    OverBudget {
        /// What was tried, in order.
        attempts: Vec<Attempt<X>>,
    },
}

impl<X> RetryError<X> {
    /// What was tried, in order.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt<X>] {
        match self {
            Self::DeadlineExceeded { attempts, .. }
            | Self::Failed { attempts }
            | Self::OverBudget { attempts } => attempts,
        }
    }

    /// The error of the last attempt.
    #[must_use]
    pub fn into_last(self) -> Option<AttemptError<X>> {
        match self {
            Self::DeadlineExceeded { mut attempts, .. }
            | Self::Failed { mut attempts }
            | Self::OverBudget { mut attempts } => attempts.pop().map(|attempt| attempt.error),
        }
    }

    /// Whether the time for all attempts together was up.
    #[must_use]
    pub fn is_deadline_exceeded(&self) -> bool {
        matches!(self, Self::DeadlineExceeded { .. })
    }
}

impl<X> fmt::Display for RetryError<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = self.attempts();
        match self {
            Self::DeadlineExceeded { timeout, .. } => {
                write!(f, "deadline exceeded: no answer within {timeout:?}, ")?;
            }
            Self::Failed { .. } => f.write_str("the call failed, ")?,
            Self::OverBudget { .. } => {
                f.write_str("the call failed, and the budget of retries is used up, ")?;
            }
        }
        match attempts.len() {
            1 => f.write_str("1 attempt made")?,
            made => write!(f, "{made} attempts made")?,
        }
        match attempts.last().and_then(Attempt::instance) {
            Some(instance) => write!(f, ", the last on {}", instance.address()),
            None => Ok(()),
        }
    }
}

impl<X: StdError + 'static> RetryError<X> {
    /// The message and every cause on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

impl<X: StdError + 'static> StdError for RetryError<X> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let attempts = self.attempts();
        let telling = attempts.iter().rfind(|attempt| !attempt.error.is_never_sent()).or(attempts.last())?;
        // The caller's own error itself, so that looking for its type in the chain finds it.
        Some(match &telling.error {
            AttemptError::NoEndpoint(error) => error,
            AttemptError::Failed(error) => error,
            timed_out @ AttemptError::TimedOut(_) => timed_out,
        })
    }
}
