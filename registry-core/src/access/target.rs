//! [`Target`]: where a server of a registry listens.

use std::fmt;
use std::path::PathBuf;

use crate::model::Address;

/// Where a server of a registry listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// At an address.
    Tcp(Address),
    /// At a socket in the file system of this machine.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}
