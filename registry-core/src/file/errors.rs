//! What the file system says, in the words of the registry.

use std::fmt;
use std::io;
use std::path::Path;

use crate::error::{Error, ErrorKind};

/// `doing` is such as "cannot write".
pub(super) fn io_error(doing: impl fmt::Display, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind as Io;
    let (kind, rule) = match error.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            "this user must be able to read and write the registry's directory; grant that, or choose another",
        ),
        Io::NotADirectory | Io::AlreadyExists | Io::IsADirectory => {
            (ErrorKind::Invalid, "part of the path is not a directory; choose another")
        }
        Io::Unsupported => {
            (ErrorKind::Unsupported, "its file system has no file locks; choose a local directory")
        }
        Io::StorageFull | Io::QuotaExceeded => (ErrorKind::Exhausted, "the disk is full"),
        Io::InvalidInput | Io::InvalidFilename => {
            (ErrorKind::Invalid, "the path cannot be used; choose another")
        }
        _ => return Error::new(ErrorKind::Other, format!("{doing} {}", path.display())).with_source(error),
    };
    Error::new(kind, format!("{doing} {}: {rule}", path.display())).with_source(error)
}
