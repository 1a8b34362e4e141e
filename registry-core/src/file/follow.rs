//! [`Follower`]: looks at a service's directory, and tells what has changed since it looked before. All of it
//! blocks, and none of it waits.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tracing::{debug, warn};

use super::errors::io_error;
use super::lock::{self, Owner, is_absent};
use super::names::{Place, id_stem, service_dir};
use super::notice::{Heard, Inbox, Listen, Notice};
use super::wire;
use crate::backend::{Removal, Update};
use crate::error::Result;
use crate::model::{Instance, InstanceId, ServiceName};

/// Tells whether a file is still the one that was read: it is only ever replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Self { len: metadata.len(), modified: metadata.modified().ok(), inode }
    }
}

/// An entry as it was last seen.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    /// `None`: it cannot be understood.
    id: Option<InstanceId>,
}

/// What one entry is at present.
enum Entry {
    Listed(Stamp, Instance),
    Broken(Stamp, String),
    /// Nobody owns it, and it was swept.
    Dead,
    Absent,
}

#[derive(Debug)]
pub(super) struct Follower {
    dir: PathBuf,
    service: ServiceName,
    notice: Notice,
    known: HashMap<String, Known>,
    /// How many of them cannot be understood.
    broken: usize,
}

/// What has changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    put: Vec<Instance>,
    gone: Vec<(InstanceId, Removal)>,
}

impl Changes {
    pub(super) fn into_update(self) -> Option<Update> {
        let Self { put, gone } = self;
        (!put.is_empty() || !gone.is_empty()).then_some(Update::Delta { put, gone })
    }
}

impl Follower {
    pub(super) fn new(root: &Path, service: &ServiceName, inbox: Arc<Inbox>, listen: Listen) -> Self {
        let dir = service_dir(root, service);
        let notice = Notice::new(dir.clone(), inbox, listen);
        Self { dir, service: service.clone(), notice, known: HashMap::new(), broken: 0 }
    }

    pub(super) fn skipped(&self) -> usize {
        self.broken
    }

    /// Whether everything is heard of, so that looking is a safety net only.
    pub(super) fn hears_all(&self) -> bool {
        self.notice.is_complete()
    }

    /// Everything there is, read anew.
    pub(super) fn list(&mut self) -> Result<Vec<Instance>> {
        self.notice.arm();
        let stems = self.stems()?;
        let mut before = std::mem::take(&mut self.known);
        self.broken = 0;
        let mut all = Vec::with_capacity(stems.len());
        for stem in stems.into_keys() {
            // What was known is needed only for not saying twice what is broken.
            if let Some(known) = before.remove(&stem).filter(|known| known.id.is_none()) {
                self.note(stem.clone(), known);
            }
            let mut changes = Changes::default();
            self.look(stem, &mut changes)?;
            all.append(&mut changes.put);
        }
        Ok(all)
    }

    /// Goes through everything, and reads what is not as it was, and what was heard of.
    pub(super) fn refresh(&mut self, heard: &Heard) -> Result<Changes> {
        self.notice.arm();
        let mut changes = Changes::default();
        let stems = self.stems()?;
        let vanished: Vec<_> = self.known.keys().filter(|stem| !stems.contains_key(*stem)).cloned().collect();
        for stem in vanished {
            self.forget(&stem, Removal::Announced, &mut changes);
        }
        for (stem, stamp) in stems {
            let same = stamp.is_some()
                && !heard.touched.contains(&stem)
                && self.known.get(&stem).map(|known| &known.stamp) == stamp.as_ref();
            let lock = Place::of(&self.dir, &stem).lock;
            if !same || !matches!(lock::probe(&lock), Ok(Owner::Alive)) {
                self.look(stem, &mut changes)?;
            }
        }
        Ok(changes)
    }

    /// Looks at what was heard of. Returns the entries whose lock was closed and who seem to be alive all the
    /// same: the system tells of the closing a moment before it lets go of the lock.
    pub(super) fn look_at(&mut self, heard: Heard) -> Result<(Changes, Vec<String>)> {
        let mut changes = Changes::default();
        for stem in heard.touched {
            if !heard.closed.contains(&stem) {
                self.look(stem, &mut changes)?;
            }
        }
        let mut alive = Vec::new();
        for stem in heard.closed {
            self.look(stem.clone(), &mut changes)?;
            if self.known.contains_key(&stem) {
                alive.push(stem);
            }
        }
        Ok((changes, alive))
    }

    /// The entries there are, with stamps as far as they can be had. What an owner left that died before it published
    /// anything is swept.
    fn stems(&self) -> Result<HashMap<String, Option<Stamp>>> {
        let failed = |error| io_error("cannot list", &self.dir, error);
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(HashMap::new()),
            Err(error) => return Err(failed(error)),
        };
        let (mut stems, mut locks) = (HashMap::new(), Vec::new());
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            // What is not UTF-8 was not written by us.
            let Some(name) = name.to_str() else { continue };
            if let Some(stem) = name.strip_suffix(".json") {
                stems.insert(stem.to_owned(), entry.metadata().ok().map(|metadata| Stamp::of(&metadata)));
            } else if let Some(stem) = name.strip_suffix(".lock") {
                locks.push(stem.to_owned());
            }
        }
        for stem in locks.into_iter().filter(|stem| !stems.contains_key(stem)) {
            let place = Place::of(&self.dir, &stem);
            if matches!(lock::probe(&place.lock), Ok(Owner::Dead)) {
                // Under its lock, so that whoever is about to publish keeps it. Somebody else's to do, if it fails.
                let _ = lock::sweep(&place);
            }
        }
        Ok(stems)
    }

    /// Looks at one entry, and notes what has become of it.
    fn look(&mut self, stem: String, changes: &mut Changes) -> Result<()> {
        match self.read(&stem)? {
            Entry::Listed(stamp, instance) => {
                self.note(stem, Known { stamp, id: Some(instance.id().clone()) });
                changes.put.push(instance);
            }
            Entry::Broken(stamp, why) => {
                let said =
                    self.known.get(&stem).is_some_and(|known| known.id.is_none() && known.stamp == stamp);
                self.forget(&stem, Removal::Announced, changes);
                if !said {
                    let path = Place::of(&self.dir, &stem).json;
                    warn!(path = %path.display(), error = %why, "an entry that cannot be understood is left out");
                }
                self.note(stem, Known { stamp, id: None });
            }
            Entry::Dead => self.forget(&stem, Removal::Expired, changes),
            Entry::Absent => self.forget(&stem, Removal::Announced, changes),
        }
        Ok(())
    }

    fn note(&mut self, stem: String, known: Known) {
        self.broken += usize::from(known.id.is_none());
        let before = self.known.insert(stem, known);
        self.broken -= usize::from(before.is_some_and(|before| before.id.is_none()));
    }

    fn forget(&mut self, stem: &str, how: Removal, changes: &mut Changes) {
        match self.known.remove(stem) {
            Some(Known { id: Some(id), .. }) => changes.gone.push((id, how)),
            Some(Known { id: None, .. }) => self.broken -= 1,
            None => {}
        }
    }

    fn read(&self, stem: &str) -> Result<Entry> {
        let place = Place::of(&self.dir, stem);
        let (stamp, bytes) = match contents(&place) {
            Ok(read) => read,
            Err(error) if is_absent(&error) => return Ok(Entry::Absent),
            Err(error) if is_of_the_file(&error) => {
                let stamp = Stamp { len: 0, modified: None, inode: 0 };
                return Ok(Entry::Broken(stamp, error.to_string()));
            }
            Err(error) => return Err(io_error("cannot read", &place.json, error)),
        };
        let instance = wire::decode(&bytes).map_err(|error| error.chain()).and_then(|instance| {
            let fits = *instance.service() == self.service && id_stem(instance.id()) == stem;
            fits.then_some(instance).ok_or_else(|| "its service and id belong in another file".to_owned())
        });
        match (lock::probe(&place.lock), instance) {
            (Ok(Owner::Alive), Ok(instance)) => Ok(Entry::Listed(stamp, instance)),
            // What has no lock and makes no sense is none of ours to remove.
            (Ok(Owner::Alive | Owner::Never), Err(why)) => Ok(Entry::Broken(stamp, why)),
            (Ok(Owner::Dead), _) | (Ok(Owner::Never), Ok(_)) => {
                match lock::sweep(&place) {
                    Ok(true) => debug!(path = %place.json.display(), "swept: its owner is dead"),
                    // A new owner came: it will be heard of, or found by the next look.
                    Ok(false) => {}
                    // Somebody else's to sweep.
                    Err(error) => debug!(path = %place.json.display(), error = %error, "cannot sweep"),
                }
                Ok(Entry::Dead)
            }
            (Err(error), _) if is_of_the_file(&error) => Ok(Entry::Broken(stamp, error.to_string())),
            (Err(error), _) => Err(io_error("cannot probe", &place.lock, error)),
        }
    }
}

/// Whether an error says something of this one file, and nothing of the directory.
fn is_of_the_file(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, IsADirectory, PermissionDenied};
    matches!(error.kind(), PermissionDenied | IsADirectory | FileTooLarge)
}

fn contents(place: &Place) -> io::Result<(Stamp, Vec<u8>)> {
    let file = File::open(&place.json)?;
    let metadata = file.metadata()?;
    if metadata.len() > wire::MAX_LEN {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "an entry has at most 1 MiB"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    file.take(wire::MAX_LEN).read_to_end(&mut bytes)?;
    Ok((Stamp::of(&metadata), bytes))
}

/// What an owner published, as it lies there.
pub(super) fn published(place: &Place) -> io::Result<Option<Vec<u8>>> {
    match contents(place) {
        Ok((_, bytes)) => Ok(Some(bytes)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
