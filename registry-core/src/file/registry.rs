//! [`Files`]: the directory as a [`Protocol`].

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::blocking;
use super::errors::io_error;
use super::follow::published;
use super::lease::FileLease;
use super::lock::{LockFile, Owner, Taken, is_absent, probe, sweep_if_there};
use super::names::{Place, service_dir};
use super::source::FileSource;
use super::wire;
use crate::backend::Protocol;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, InstanceId, ServiceName};
use crate::report::{Finding, Report};
use crate::settings::Settings;

/// How many leases of a registry work on their files at the same time.
const THREADS: usize = 4;

#[derive(Debug)]
pub(super) struct Files {
    root: Arc<Path>,
    settings: Settings,
    threads: Arc<Semaphore>,
}

impl Files {
    pub(super) fn new(root: PathBuf, settings: Settings) -> Self {
        Self { root: root.into(), settings, threads: Arc::new(Semaphore::new(THREADS)) }
    }
}

#[async_trait]
impl Protocol for Files {
    type Source = FileSource;
    type Lease = FileLease;

    fn source(&self, service: &ServiceName) -> FileSource {
        FileSource::new(Arc::clone(&self.root), service)
    }

    fn lease(&self, instance: &Instance) -> FileLease {
        let place = Place::new(&self.root, instance.service(), instance.id());
        FileLease::new(place, instance, Arc::clone(&self.threads))
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let root = Arc::clone(&self.root);
        blocking(move || services(&root)).await
    }

    async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        let place = Place::new(&self.root, service, id);
        let absent = Error::new(ErrorKind::NotFound, format!("no instance {id} of {service} is registered"));
        blocking(move || {
            let failed = |error| io_error("cannot remove", &place.json, error);
            if probe(&place.lock).map_err(failed)? != Owner::Alive {
                // What a dead owner left is not registered; it is swept by the way.
                return sweep_if_there(&place).map_err(failed).and(Err(absent));
            }
            match fs::remove_file(&place.json) {
                // Its owner's lock stays, and it registers again.
                Ok(()) => Ok(()),
                Err(error) if is_absent(&error) => Err(absent),
                Err(error) => Err(failed(error)),
            }
        })
        .await
    }

    async fn check(&self) -> Report {
        let root = Arc::clone(&self.root);
        let checked = blocking(move || Ok(check(&root))).await;
        checked.unwrap_or_else(|error| {
            let after = || Finding::NotTried("the directory was not looked at".to_owned());
            Report::new(Finding::Refused(error), after(), after())
        })
    }
}

/// The services that have an instance whose owner is alive.
fn services(root: &Path) -> Result<Vec<ServiceName>> {
    let mut names = BTreeSet::new();
    for dir in list(root)? {
        let Ok(files) = list(&dir) else { continue };
        let live = files.into_iter().find_map(|json| {
            let stem = json.file_name()?.to_str()?.strip_suffix(".json")?;
            let place = Place::of(&dir, stem);
            if probe(&place.lock).ok()? != Owner::Alive {
                return None;
            }
            let instance = wire::decode(&published(&place).ok()??).ok()?;
            (service_dir(root, instance.service()) == dir).then(|| instance.service().clone())
        });
        names.extend(live);
    }
    Ok(names.into_iter().collect())
}

/// What is in a directory; nothing, if there is none.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect()) {
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        listed => listed.map_err(|error| io_error("cannot list", dir, error)),
    }
}

fn check(root: &Path) -> Report {
    let not_tried = || Finding::NotTried("the directory cannot be reached".to_owned());
    let exists = match fs::metadata(root) {
        Ok(metadata) if metadata.is_dir() => true,
        Ok(_) => {
            let error = io_error("cannot use", root, io::ErrorKind::NotADirectory.into());
            return Report::new(Finding::Refused(error), not_tried(), not_tried());
        }
        Err(error) if is_absent(&error) => false,
        Err(error) => {
            let error = io_error("cannot reach", root, error);
            return Report::new(Finding::Refused(error), not_tried(), not_tried());
        }
    };
    let reach = if exists { "a directory" } else { "no directory yet, made by the first registration" };
    let read = match list(root) {
        Ok(_) => Finding::Works(String::new()),
        Err(error) => Finding::Refused(error),
    };
    let write = match try_to_write(root) {
        Ok(()) => Finding::Works(String::new()),
        Err(error) => Finding::Refused(error),
    };
    Report::new(Finding::Works(reach.to_owned()), read, write)
}

/// Locks a file and removes it, and every directory that had to be made for it.
fn try_to_write(root: &Path) -> Result<()> {
    let missing: Vec<_> = root.ancestors().take_while(|path| fs::metadata(path).is_err()).collect();
    let written = fs::create_dir_all(root)
        .map_err(|error| io_error("cannot make directory", root, error))
        .and_then(|()| {
            let place = Place::of(root, &format!(".check-{}", std::process::id()));
            let failed = |error| io_error("cannot write", &place.lock, error);
            match LockFile::take(&place.lock).map_err(failed)? {
                Taken::Ours(lock) => lock.remove_entry(&place).map_err(failed),
                // Another check of this process is at it, and so it works.
                Taken::Owned { .. } | Taken::Probed => Ok(()),
            }
        });
    for made in missing {
        // Refused if somebody has registered meanwhile, as it should be.
        let _ = fs::remove_dir(made);
    }
    written
}
