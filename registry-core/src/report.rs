//! [`Report`]: what [`Registry::check`](crate::Registry::check) found.

use std::fmt;

use crate::error::Error;

/// One thing that was tried.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Finding {
    /// It works; with a word on what answered, such as a version.
    Works(String),
    /// It was refused, or failed.
    Refused(Error),
    /// Not tried, because something before it failed, or because this registry has no such thing.
    NotTried(String),
}

impl Finding {
    /// Whether it failed.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works(what) if what.is_empty() => f.write_str("ok"),
            Self::Works(what) => write!(f, "ok ({what})"),
            Self::Refused(error) => f.write_str(&error.chain()),
            Self::NotTried(why) => write!(f, "not tried: {why}"),
        }
    }
}

/// What can be done with a registry as it is configured: can it be reached, read, written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// Does a server answer, and is it the right one.
    pub reach: Finding,
    /// May services be listed.
    pub read: Finding,
    /// May an entry be published and withdrawn.
    pub write: Finding,
}

impl Report {
    /// Puts a report together.
    #[must_use]
    pub fn new(reach: Finding, read: Finding, write: Finding) -> Self {
        Self { reach, read, write }
    }

    /// Whether nothing was refused.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        ![&self.reach, &self.read, &self.write].into_iter().any(Finding::is_refused)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reach: {}\nread:  {}\nwrite: {}", self.reach, self.read, self.write)
    }
}
