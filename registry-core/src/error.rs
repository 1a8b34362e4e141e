//! One error for every registry: [`Error`], opaque and cheap to clone, sorted by [`ErrorKind`].
//!
//! It is cloneable because one failure has many readers: every subscriber of a service sees why its set is
//! stale. It is opaque so that no client library's type becomes part of a backend's public API.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of everything in callsign that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is, and so what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value that breaks a rule: a bad URL, name, address, weight. Mend the value.
    Invalid,
    /// Asked of a registry that cannot do it, or of a build that lacks the feature.
    Unsupported,
    /// The registry could not be reached, or cannot serve now. Trying again can help.
    Unavailable,
    /// The registry did not answer in time; whether the request took effect is unknown.
    Timeout,
    /// Who we are was refused: a wrong or expired credential.
    Unauthenticated,
    /// We are known, and may not do this.
    PermissionDenied,
    /// Another live owner holds this id.
    Conflict,
    /// No such service, instance or place.
    NotFound,
    /// A quota or rate limit of the registry. Trying again, slowly, can help.
    Exhausted,
    /// The registry answered with something that cannot be understood.
    Malformed,
    /// The registry or the guard has been closed by its owner.
    Closed,
    /// A newer registration claimed this id; this one never writes again.
    Superseded,
    /// Anything else, the system's own errors among them.
    Other,
}

/// A failure, with its kind, a message for people, and what caused it.
///
/// `Display` prints this error's own message only; causes are reached through [`source`](StdError::source),
/// so that a reporter which walks the chain prints each once. [`Error::chain`] prints them all on one line.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A new error of a kind, with a message that names the value, the rule and the fix.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: None }))
    }

    /// Shorthand for [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The same error with what caused it. Nothing that may hold a secret belongs in a source.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source: Box<dyn StdError + Send + Sync> = source.into();
        Self(Arc::new(Inner {
            kind: self.0.kind,
            message: self.0.message.clone(),
            source: Some(Arc::from(source)),
        }))
    }

    /// The same error said of something larger: `context: message`, with this error's own source.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self(Arc::new(Inner {
            kind: self.0.kind,
            message: format!("{context}: {}", self.0.message),
            source: self.0.source.clone(),
        }))
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying the same again, unchanged, can succeed: [`Unavailable`](ErrorKind::Unavailable),
    /// [`Timeout`](ErrorKind::Timeout), [`Exhausted`](ErrorKind::Exhausted) and [`Other`](ErrorKind::Other).
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Exhausted | ErrorKind::Other
        )
    }

    /// Whether waiting cannot mend it: somebody must change a value, a build or a grant. Every kind that is not
    /// [temporary](Self::is_temporary).
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !self.is_temporary()
    }

    /// The message and every cause on one line, as `message: cause: cause`, for places that show only one.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut line = self.0.message.clone();
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries print their source as well as returning it.
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_own_message_and_chain_is_all() {
        let io = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error =
            Error::new(ErrorKind::Unavailable, "cannot reach etcd").with_source(io).context("list of book");
        assert_eq!(error.to_string(), "list of book: cannot reach etcd");
        assert_eq!(error.chain(), "list of book: cannot reach etcd: connection refused");
        assert!(error.is_temporary());
    }
}
