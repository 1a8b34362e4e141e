//! `file:///dir`: a registry that is a directory, shared by the processes of one machine. Nothing is installed,
//! nothing runs: [`open`] is all there is.
//!
//! # Layout
//! An instance is two files, `/dir/SERVICE/ID.json` and `/dir/SERVICE/ID.lock`. The first is what it registered,
//! as readable JSON, and is replaced by a rename, so that no reader sees half of it. The second is what its owner
//! holds open under an exclusive lock for as long as it is registered. The kernel drops that lock when the
//! process dies, however it dies, so an entry whose lock can be had has no owner: it is not listed, and whoever
//! meets it sweeps it away. There is no TTL and nothing to renew, and a removal is proof of death, which is why
//! the mass-removal guard is off here unless the URL asks for it.
//!
//! Directories are made at the first registration, and stay. A service or id is written in lower-case letters,
//! digits, `-`, `_` and `.`; other characters as `%` and two digits, so that no file system can mistake two ids
//! for one, or one for a device.
//!
//! # Bounds
//! The owner's word reaches watchers of other processes by the system's file notification, in milliseconds; the
//! death of an owner too on Linux, where the kernel tells of the lock's closing. Elsewhere, and wherever
//! notification cannot be had, the directory is looked through every half second. A lost file is written anew
//! within two seconds.
//!
//! Network file systems are not supported: their locks may outlive the owner, and they do not notify. Whoever
//! may write the directory may register and remove anything in it. It compiles for macOS and Windows, and has been
//! run on Linux only.

mod errors;
mod follow;
mod lease;
mod lock;
mod names;
mod notice;
mod registry;
mod source;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::registry::Registry;
use crate::settings::Settings;
use crate::url::RegistryUrl;
use registry::Files;
use tokio::task::JoinError;

/// Opens a `file:` registry: `file:///absolute/dir`, on Windows `file:///C:/dir`. Touches nothing: a directory
/// that does not exist is an empty registry, and is made by the first registration.
///
/// | key | meaning | default |
/// |---|---|---|
/// | `drain` | how long a leaving instance serves on | `2s` |
/// | `verify` | how often an own entry is read back | `30s` |
/// | `grace` | how long a loss of more than half of a service, by crashes, is held back | `0s` |
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid): a path that is not absolute, a host, an unknown key or a bad value.
/// [`Unsupported`](ErrorKind::Unsupported) outside a Tokio runtime.
pub fn open(url: &RegistryUrl) -> Result<Registry> {
    let root = root(url)?;
    let mut query = url.query();
    if query.take("ttl").is_some() {
        return Err(Error::invalid(
            "registry URL has the key \"ttl\": an entry of a file: registry lives exactly as long as its owner, so \
             leave it out; known here are drain, grace, verify",
        ));
    }
    let defaults = Settings {
        grace: Duration::ZERO,
        // There is no server that many claims at once could overwhelm.
        claims_per_second: 10_000,
        ..Settings::default()
    };
    let settings = defaults.with_query(&mut query)?;
    query.finish()?;
    Registry::new(url.to_string(), Files::new(root, settings))
}

/// The URL of a directory as a registry, to which a query may be appended.
///
/// ```
/// # use std::path::Path;
/// # #[cfg(unix)]
/// assert_eq!(callsign_core::file::url(Path::new("/tmp/100% books")), "file:///tmp/100%25 books");
/// ```
#[must_use]
pub fn url(dir: &Path) -> String {
    let path = dir.to_string_lossy();
    let mut url = String::from("file://");
    if !path.starts_with('/') {
        // C:\dir is file:///C:/dir
        url.push('/');
    }
    for c in path.chars() {
        match c {
            '%' => url.push_str("%25"),
            '?' => url.push_str("%3F"),
            '#' => url.push_str("%23"),
            '\\' if cfg!(windows) => url.push('/'),
            c => url.push(c),
        }
    }
    url
}

/// The URL of a directory of this user, for programs that are not told of another registry: all of them then find each
/// other. It is in `$XDG_RUNTIME_DIR`, which other users of the machine do not write to, or else in the directory for
/// temporary files.
#[must_use]
pub fn own_url() -> String {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let dir = runtime.filter(|dir| dir.is_absolute() && dir.is_dir()).unwrap_or_else(std::env::temp_dir);
    url(&dir.join("callsign"))
}

fn root(url: &RegistryUrl) -> Result<PathBuf> {
    let form = "write file:///absolute/dir, with three slashes";
    if url.tls() || url.credentials().is_some() {
        return Err(Error::invalid(format!(
            "registry URL {url} has TLS or a user, and is a directory: {form}"
        )));
    }
    if url.has_hosts() {
        return Err(Error::invalid(format!(
            "registry URL {url} names a host, and is on this machine: {form}"
        )));
    }
    let path = url.path();
    // file:///C:/dir
    let path = if cfg!(windows) { path.strip_prefix('/').unwrap_or(path) } else { path };
    let root = PathBuf::from(path);
    if path.contains('\0') || !root.is_absolute() || root.parent().is_none() {
        return Err(Error::invalid(format!(
            "registry URL {url} has no absolute path of a directory: {form}"
        )));
    }
    Ok(root)
}

/// Does file work off the runtime's threads: a disk may take its time.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ended(error)))
}

/// Why blocking work has no result. That it panicked is passed on: whoever waits for it is to end by that too.
fn ended(error: JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => {
            Error::new(ErrorKind::Closed, "the runtime of the registry has ended").with_source(error)
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
