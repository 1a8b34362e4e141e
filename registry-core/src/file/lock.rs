//! The lock that an owner lives by: taking it, probing it, and taking its file away.
//!
//! A file that is deleted while somebody has just opened it leaves that somebody with a lock on nothing. So
//! whoever locks then looks whether the path still leads to what it locked, and deletes only under the lock.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::names::Place;

/// A lock file, and the exclusive lock on it.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
}

/// What trying to take a lock came to.
#[derive(Debug)]
pub(super) enum Taken {
    Ours(LockFile),
    /// Another process, or another registration of this one, lives by it; with its pid, by its own word.
    Owned {
        pid: Option<u32>,
    },
    /// Somebody is probing it at this moment.
    Probed,
}

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Alive,
    Dead,
    /// There is no lock file.
    Never,
}

impl LockFile {
    /// Takes a lock if nobody has it, making its file where there is none.
    pub(super) fn take(path: &Path) -> io::Result<Taken> {
        loop {
            let file = options().read(true).write(true).create(true).truncate(false).open(path)?;
            match file.try_lock() {
                Ok(()) => {
                    let lock = Self { file, path: path.to_owned() };
                    if lock.is_in_place()? {
                        return Ok(Taken::Ours(lock));
                    }
                    // It was swept away between opening and locking.
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {
                    return match file.try_lock_shared() {
                        Ok(()) => Ok(Taken::Probed),
                        Err(TryLockError::WouldBlock) => Ok(Taken::Owned { pid: read_pid(file) }),
                        Err(TryLockError::Error(error)) => Err(error),
                    };
                }
            }
        }
    }

    /// Leaves a word for people on who holds it. Nothing reads it but error messages.
    pub(super) fn sign(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        writeln!(self.file, "{}", std::process::id())
    }

    /// Whether the path still leads to this file.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(there) => Ok(same(&self.file.metadata()?, &there)),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the entry that this is the lock of: what is published first, so that it is never listed without
    /// an owner, and the lock last.
    pub(super) fn remove_entry(self, place: &Place) -> io::Result<()> {
        let removed = remove(&place.json).and(remove(&place.temp));
        if cfg!(unix) {
            // Before unlocking: later it might be another owner's.
            let removed = removed.and(remove(&self.path));
            self.unlock().and(removed)
        } else {
            // Windows refuses to delete what anybody has open (see `options`), this handle included, and so a
            // later owner's file is safe from it.
            let path = self.path.clone();
            self.unlock()?;
            let _ = fs::remove_file(path);
            removed
        }
    }

    /// Explicitly, because a child process that is being started may hold a copy of the handle for a moment.
    fn unlock(self) -> io::Result<()> {
        self.file.unlock()
    }
}

/// Whether the owner of an entry lives. Never disturbs it: the lock is shared and held for no time.
pub(super) fn probe(path: &Path) -> io::Result<Owner> {
    // Read-only, so that closing it is not a close-for-writing event to every watcher.
    let file = match options().read(true).open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(Owner::Never),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Owner::Dead),
        Err(TryLockError::WouldBlock) => Ok(Owner::Alive),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes what a dead owner left, unless a new one has come. `Ok(false)`: there is one.
pub(super) fn sweep(place: &Place) -> io::Result<bool> {
    let file = match options().read(true).open(&place.lock) {
        Err(error) if is_absent(&error) => {
            options().read(true).write(true).create(true).truncate(false).open(&place.lock)?
        }
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let lock = LockFile { file, path: place.lock.clone() };
    if !lock.is_in_place()? {
        return Ok(false);
    }
    lock.remove_entry(place).map(|()| true)
}

/// The same, but makes nothing where there is nothing.
pub(super) fn sweep_if_there(place: &Place) -> io::Result<()> {
    let there = |path: &Path| fs::symlink_metadata(path).is_ok();
    if there(&place.lock) || there(&place.json) || there(&place.temp) {
        sweep(place)?;
    }
    Ok(())
}

/// Removes a file; that there is none is as good.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the path leads nowhere.
pub(super) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn read_pid(mut file: File) -> Option<u32> {
    let mut text = [0; 16];
    // Fails on Windows, where a lock keeps readers out.
    let len = file.read(&mut text).ok()?;
    std::str::from_utf8(&text[..len]).ok()?.trim().parse().ok()
}

#[cfg(not(windows))]
fn options() -> OpenOptions {
    OpenOptions::new()
}

/// Without the share of deleting, so that Windows refuses to delete a lock file that anybody has open.
#[cfg(windows)]
fn options() -> OpenOptions {
    use std::os::windows::fs::OpenOptionsExt;
    const FILE_SHARE_READ: u32 = 1;
    const FILE_SHARE_WRITE: u32 = 2;
    let mut options = OpenOptions::new();
    options.share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE);
    options
}

/// Whether both are of the same file.
#[cfg(unix)]
fn same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Always, as a file that is open cannot be deleted.
#[cfg(not(unix))]
fn same(_: &Metadata, _: &Metadata) -> bool {
    true
}
