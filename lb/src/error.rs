//! Why there was no endpoint to call, and how "never sent" is told from "may have been sent".

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use callsign_core::{Error, Instance, ServiceName};
use thiserror::Error as ThisError;

/// Any error, as a factory or a transport returns it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a [`Balancer`](crate::Balancer) has no endpoint to give.
#[derive(Debug, Clone, ThisError)]
#[non_exhaustive]
pub enum PickError {
    /// The registry has not been listed yet, or no connection has been made or refused yet: waiting can help.
    #[error("no instance of {service} is ready yet: {}", if *connecting == 0 { "the registry has not been listed".to_owned() } else { format!("still connecting to {connecting}") })]
    #[non_exhaustive]
    NotYet {
        /// The service.
        service: ServiceName,
        /// How many connections are being made; 0 while the registry has not been listed.
        connecting: usize,
        /// Why the registry cannot be read, if it cannot.
        source: Option<Error>,
    },
    /// The registry lists no instance that may be called.
    #[error("{}", empty(service, *listed))]
    #[non_exhaustive]
    Empty {
        /// The service.
        service: ServiceName,
        /// How many instances are listed all the same: they are down, or do not speak the protocol.
        listed: usize,
        /// Why the registry cannot be read, if it cannot: the list may be out of date.
        source: Option<Error>,
    },
    /// Instances are listed, and none of them can be reached.
    #[error("no instance of {service} can be reached")]
    #[non_exhaustive]
    Unreachable {
        /// The service.
        service: ServiceName,
        /// The failed dials.
        source: DialErrors,
    },
    /// The registry has been closed, and no endpoint is left.
    #[error("no instance of {service} is left: its registry has been closed")]
    #[non_exhaustive]
    Closed {
        /// The service.
        service: ServiceName,
    },
}

fn empty(service: &ServiceName, listed: usize) -> String {
    match listed {
        0 => format!("no instance of {service} is registered"),
        1 => format!("the one instance of {service} that is registered is not to be called"),
        _ => format!("none of the {listed} instances of {service} that are registered is to be called"),
    }
}

impl PickError {
    /// Whether it is too early to tell: the registry was not listed, or no dial has finished.
    #[must_use]
    pub fn is_not_yet(&self) -> bool {
        matches!(self, Self::NotYet { .. })
    }

    /// The message and every cause on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// The last failed dial of one instance. Displays as `ADDRESS: message`; the cause is its source.
#[derive(Debug, Clone)]
pub struct DialError {
    instance: Arc<Instance>,
    error: Arc<dyn StdError + Send + Sync>,
}

impl DialError {
    pub(crate) fn new(instance: Arc<Instance>, error: BoxError) -> Self {
        Self { instance, error: Arc::from(error) }
    }

    /// The instance that could not be reached.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}", self.instance.address())
    }
}

impl StdError for DialError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.error)
    }
}

/// The failed dials of a service: how many instances there are, and the last error of some of them.
#[derive(Debug, Clone)]
pub struct DialErrors {
    total: usize,
    errors: Arc<[DialError]>,
}

impl DialErrors {
    /// Of a service with 10,000 instances, this many errors say enough.
    pub(crate) const KEPT: usize = 8;

    pub(crate) fn new(total: usize, errors: Vec<DialError>) -> Self {
        Self { total, errors: errors.into() }
    }

    /// How many instances cannot be reached.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Their last errors, of at most eight of them.
    #[must_use]
    pub fn errors(&self) -> &[DialError] {
        &self.errors
    }
}

impl fmt::Display for DialErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.total {
            1 => write!(f, "its dial failed"),
            total => write!(f, "all {total} dials failed, one of them"),
        }
    }
}

impl StdError for DialErrors {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.errors.first().map(|error| error as &(dyn StdError + 'static))
    }
}

/// Marks an error of a call that was provably never sent: no server can have seen it, so that repeating it
/// is safe whatever it does. Put it around such an error, and [`Retry`](crate::Retry) repeats the call.
///
/// ```
/// # use callsign_lb::{NeverSent, is_never_sent};
/// # use std::io;
/// fn ask(pool: &[u8]) -> io::Result<()> {
///     // The request has not left: somebody else may be asked.
///     Err(io::Error::other(NeverSent("no free connection".into())))
/// }
/// assert!(is_never_sent(&ask(&[]).unwrap_err()));
/// ```
#[derive(Debug, ThisError)]
#[error("the call was never sent")]
pub struct NeverSent(#[source] pub BoxError);

/// Whether an error says that the call was never sent: it is or was caused by a [`NeverSent`], a
/// [`PickError`], or a connection that was refused.
///
/// It believes that a call is one request. A client that sends several for one call, such as one that follows
/// redirects, may have a later one refused: there, say with [`Retry::when`](crate::Retry::when) what may be repeated.
#[must_use]
pub fn is_never_sent(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| {
        cause.is::<NeverSent>()
            || cause.is::<PickError>()
            || cause
                .downcast_ref::<io::Error>()
                .is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
    })
}

/// An error and everything that caused it, outermost first.
pub(crate) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // An I/O error that was made of another names that one's cause as its own, and leaves it out.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

/// All messages of an error on one line, without the repetitions of those that print their source too.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if line.is_empty() {
            line = text;
        } else if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_sent_is_found_in_the_chain() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "refused");
        let instance = Arc::new(Instance::new("book", "127.0.0.1:1").unwrap());
        let dial = DialError::new(instance, Box::new(refused));
        assert!(is_never_sent(&dial));
        let reset = io::Error::new(io::ErrorKind::ConnectionReset, "reset");
        assert!(!is_never_sent(&reset));
        assert!(is_never_sent(&NeverSent(Box::new(reset))));
        assert!(is_never_sent(&io::Error::other(NeverSent("by an I/O error".into()))));
        let closed = PickError::Closed { service: "book".parse().unwrap() };
        assert!(is_never_sent(&io::Error::other(io::Error::other(closed))));
    }

    #[test]
    fn messages_are_own_only_and_chain_has_all() {
        let service: ServiceName = "book".parse().unwrap();
        let instance = Arc::new(Instance::new("book", "127.0.0.1:1").unwrap());
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let errors = DialErrors::new(1, vec![DialError::new(instance, Box::new(refused))]);
        let error = PickError::Unreachable { service: service.clone(), source: errors };
        assert_eq!(error.to_string(), "no instance of book can be reached");
        assert_eq!(
            error.chain(),
            "no instance of book can be reached: its dial failed: cannot connect to 127.0.0.1:1: connection refused"
        );
        let error = PickError::NotYet { service: service.clone(), connecting: 2, source: None };
        assert_eq!(error.to_string(), "no instance of book is ready yet: still connecting to 2");
        let error = PickError::Empty { service, listed: 0, source: None };
        assert_eq!(error.to_string(), "no instance of book is registered");
    }
}
