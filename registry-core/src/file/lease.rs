//! [`FileLease`]: keeps one entry by holding its lock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

use super::blocking;
use super::errors::io_error;
use super::follow::{Stamp, published};
use super::lock::{LockFile, Taken, is_absent, remove};
use super::names::Place;
use super::wire;
use crate::backend::{Claim, Kept, Lease, Loss, Terms};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, InstanceId, ServiceName};

/// How often the owner looks whether its files are still there.
const CHECK: Duration = Duration::from_secs(1);
/// How long a lock must be held by another for its owner to be alive, and no sweeper or reader.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct FileLease {
    // Shared with the blocking work under way: whoever of the two goes last withdraws the entry.
    held: Arc<Mutex<Held>>,
    threads: Arc<Semaphore>,
    service: ServiceName,
    id: InstanceId,
    check_at: Instant,
}

/// A call of the lease. Work of a call that was dropped must not begin after that of the next one.
struct Call(Arc<AtomicBool>);

impl Default for Call {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What one try to claim came to.
enum Tried {
    Published,
    Owned { pid: Option<u32> },
    Probed,
}

/// The entry, as far as it is ours. Everything here blocks, for a moment.
#[derive(Debug)]
struct Held {
    place: Place,
    lock: Option<LockFile>,
    /// Of what was published last.
    stamp: Option<Stamp>,
}

impl FileLease {
    /// `threads` bounds how many leases of a registry work at the same time.
    pub(super) fn new(place: Place, instance: &Instance, threads: Arc<Semaphore>) -> Self {
        Self {
            held: Arc::new(Mutex::new(Held { place, lock: None, stamp: None })),
            threads,
            service: instance.service().clone(),
            id: instance.id().clone(),
            check_at: Instant::now(),
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Held) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // A thousand registrations at once are not to become a thousand threads.
        let thread = Arc::clone(&self.threads).acquire_owned().await;
        let (held, call) = (Arc::clone(&self.held), Call::default());
        let wanted = Arc::clone(&call.0);
        let done = blocking(move || {
            let _thread = thread;
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            if wanted.load(Ordering::Acquire) {
                return work(&mut held);
            }
            Err(Error::new(ErrorKind::Closed, "the call was dropped before it began"))
        });
        let done = done.await;
        drop(call);
        done
    }
}

#[async_trait]
impl Lease for FileLease {
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>> {
        let content: Arc<[u8]> = wire::encode(instance)?.into();
        let give_up = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            let content = Arc::clone(&content);
            let tried = self.with(move |held| held.claim(&content)).await?;
            match tried {
                Tried::Published => {
                    self.check_at = Instant::now() + CHECK;
                    return Ok(Some(Terms { ttl: None }));
                }
                _ if Instant::now() < give_up => {}
                Tried::Owned { .. } if how == Claim::Again => return Ok(None),
                Tried::Owned { pid } => {
                    let owner = pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        format!(
                            "{}/{} is registered by a process that is alive{owner}: stop that one, or register with \
                             another id",
                            self.service, self.id
                        ),
                    ));
                }
                Tried::Probed => {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        format!(
                            "the lock of {}/{} is kept busy by processes that probe it",
                            self.service, self.id
                        ),
                    ));
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    async fn renew(&mut self) -> Result<Kept> {
        self.with(|held| held.state()).await
    }

    async fn write(&mut self, instance: &Instance) -> Result<Kept> {
        let content = wire::encode(instance)?;
        self.with(move |held| held.write(&content)).await
    }

    async fn verify(&mut self, instance: &Instance) -> Result<Kept> {
        let content = wire::encode(instance)?;
        self.with(move |held| {
            let kept = held.state()?;
            let there =
                published(&held.place).map_err(|error| io_error("cannot read", &held.place.json, error))?;
            Ok(if there.is_some_and(|there| there == content) { kept } else { Kept::Lost })
        })
        .await
    }

    async fn lost(&mut self) -> Loss {
        loop {
            sleep_until(self.check_at).await;
            self.check_at = Instant::now() + CHECK;
            // Three calls for metadata of files that are in the kernel's cache take less time than to hand them to
            // another thread, and a process may hold thousands of entries. Errors are for `verify` to report.
            let state = self.held.try_lock().map(|held| held.state());
            if matches!(state, Ok(Ok(Kept::Lost))) {
                return Loss::Lost;
            }
        }
    }

    async fn release(&mut self) -> Result<()> {
        self.with(Held::release).await
    }
}

impl Held {
    fn claim(&mut self, content: &[u8]) -> Result<Tried> {
        if !self.has_lock()? {
            // What is locked, if anything, is no longer the entry's.
            self.lock = None;
            let place = &self.place;
            fs::create_dir_all(&place.dir)
                .map_err(|error| io_error("cannot make directory", &place.dir, error))?;
            let failed = |error| io_error("cannot lock", &place.lock, error);
            match LockFile::take(&place.lock).map_err(failed)? {
                Taken::Ours(mut lock) => {
                    lock.sign().map_err(failed)?;
                    self.lock = Some(lock);
                }
                Taken::Owned { pid } => return Ok(Tried::Owned { pid }),
                Taken::Probed => return Ok(Tried::Probed),
            }
            if let Err(error) = self.publish(content) {
                // Under our lock, what a dead owner left would be listed as ours.
                let _ = self.release();
                return Err(error);
            }
        } else {
            self.publish(content)?;
        }
        Ok(Tried::Published)
    }

    fn write(&mut self, content: &[u8]) -> Result<Kept> {
        let json = &self.place.json;
        let there = json.try_exists().map_err(|error| io_error("cannot read", json, error))?;
        if !there || !self.has_lock()? {
            return Ok(Kept::Lost);
        }
        self.publish(content)?;
        Ok(Kept::Kept)
    }

    /// Whether both files are there, and are ours.
    fn state(&self) -> Result<Kept> {
        if !self.has_lock()? {
            return Ok(Kept::Lost);
        }
        match fs::metadata(&self.place.json) {
            Ok(there) if Some(Stamp::of(&there)) == self.stamp => Ok(Kept::Kept),
            Ok(_) => Ok(Kept::Lost),
            Err(error) if is_absent(&error) => Ok(Kept::Lost),
            Err(error) => Err(io_error("cannot read", &self.place.json, error)),
        }
    }

    fn has_lock(&self) -> Result<bool> {
        let Some(lock) = &self.lock else { return Ok(false) };
        lock.is_in_place().map_err(|error| io_error("cannot read", &self.place.lock, error))
    }

    /// Replaces what is published. Only under the lock, so that nobody else writes the same temporary file.
    fn publish(&mut self, content: &[u8]) -> Result<()> {
        let Place { json, temp, .. } = &self.place;
        let write = || -> io::Result<Stamp> {
            let mut file = File::create(temp)?;
            file.write_all(content)?;
            let stamp = Stamp::of(&file.metadata()?);
            drop(file);
            fs::rename(temp, json)?;
            Ok(stamp)
        };
        match write() {
            Ok(stamp) => {
                self.stamp = Some(stamp);
                Ok(())
            }
            Err(error) => {
                let _ = remove(temp);
                Err(io_error("cannot write", json, error))
            }
        }
    }

    fn release(&mut self) -> Result<()> {
        if !self.has_lock()? {
            self.lock = None;
            return Ok(());
        }
        let Some(lock) = self.lock.take() else { return Ok(()) };
        lock.remove_entry(&self.place).map_err(|error| io_error("cannot remove", &self.place.json, error))
    }
}

/// A registration that ends without releasing, because its runtime ends, is withdrawn too.
impl Drop for Held {
    fn drop(&mut self) {
        // If this fails the lock is dropped all the same, and the entry is a dead one.
        let _ = self.release();
    }
}
