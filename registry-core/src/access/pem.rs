//! [`Pem`]: certificates and keys, in files or in memory.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A certificate or a key in PEM: in a file, which is read anew for every connection, or as bytes.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pem {
    /// In a file.
    File(PathBuf),
    /// As it is. Not shown by `Debug`.
    Bytes(Vec<u8>),
}

impl Pem {
    /// In a file.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().to_owned())
    }

    /// As it is.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(bytes.into())
    }

    /// The bytes; `what` says of what, in the error.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): the file cannot be read.
    pub fn load(&self, what: &str) -> Result<Vec<u8>> {
        match self {
            Self::File(path) => std::fs::read(path).map_err(|error| {
                Error::invalid(format!("{what} {} cannot be read: {error}", path.display()))
            }),
            Self::Bytes(bytes) => Ok(bytes.clone()),
        }
    }
}

/// The path, or `bytes`.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Bytes(_) => f.write_str("(in memory)"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
