//! [`FileFixture`]: a registry in a directory of its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use callsign_core::{Error, ErrorKind, InstanceId, Registry, Result, ServiceName};
use tempfile::TempDir;

use crate::fixture::{Caps, Fixture, Group, Open, Tuning, with_query};

/// A registry in a directory of its own.
#[derive(Debug)]
pub struct FileFixture {
    open: Open,
    dir: TempDir,
    /// The locks of injected entries: their owner is this fixture.
    locks: Mutex<HashMap<PathBuf, File>>,
}

impl FileFixture {
    /// A registry in an empty directory.
    ///
    /// # Panics
    /// There is no temporary directory.
    #[must_use]
    pub fn new(open: Open) -> Self {
        let dir =
            tempfile::Builder::new().prefix("callsign-test-").tempdir().expect("no temporary directory");
        Self { open, dir, locks: Mutex::default() }
    }

    /// The registry's URL.
    #[must_use]
    pub fn url(&self) -> String {
        callsign_core::file::url(self.dir.path())
    }

    fn service(&self, service: &ServiceName) -> PathBuf {
        self.dir.path().join(service.as_str())
    }

    /// Puts an entry beside a lock that is held, as an owner in another process has it.
    fn put(&self, service: &ServiceName, stem: &str, content: &[u8]) -> io::Result<()> {
        let dir = self.service(service);
        fs::create_dir_all(&dir)?;
        let lock = File::create(dir.join(format!("{stem}.lock")))?;
        // A reader may be looking just then whether anybody owns it.
        lock.lock()?;
        // By a rename, so that nobody reads half of it.
        let temporary = dir.join(format!(".{stem}.new"));
        fs::write(&temporary, content)?;
        fs::rename(temporary, dir.join(format!("{stem}.json")))?;
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.join(stem), lock);
        Ok(())
    }
}

/// An id that is an address, as its files are called.
fn stem(id: &InstanceId) -> String {
    id.as_str().replace(':', "%3a")
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Other, error.to_string())
}

#[async_trait]
impl Fixture for FileFixture {
    fn caps(&self) -> Caps {
        Caps { lacks: vec![Group::Leasing, Group::Outage], ..Caps::default() }
    }

    fn open(&self, tuning: &Tuning) -> Result<Registry> {
        (self.open)(&with_query(&self.url(), &tuning.query()))
    }

    async fn count(&self, service: &ServiceName) -> Result<usize> {
        let entries = match fs::read_dir(self.service(service)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(failed(error)),
        };
        Ok(entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "json"))
            .count())
    }

    async fn inject(&self, service: &ServiceName, id: &InstanceId, address: &str) -> Result<()> {
        let entry = format!(r#"{{"format":1,"service":"{service}","id":"{id}","address":"{address}"}}"#);
        self.put(service, &stem(id), entry.as_bytes()).map_err(failed)
    }

    async fn inject_malformed(&self, service: &ServiceName) -> Result<usize> {
        let entry = |id: &str, address: &str| {
            format!(r#"{{"format":1,"service":"{service}","id":"{id}","address":"{address}"}}"#).into_bytes()
        };
        let large = format!(r#"{{"format":1,"later":"{}"}}"#, "x".repeat(2 << 20)).into_bytes();
        let contents = [
            Vec::new(),
            b"null".to_vec(),
            b"{\"format\":1".to_vec(),
            b"{\"format\":1}".to_vec(),
            b"{\"format\":2}".to_vec(),
            b"\xff\xfe\xfd".to_vec(),
            entry("bad-6", "10.0.0.1:0"),
            entry("bad-7", "10.0.0.1:70000"),
            large,
        ];
        for (n, content) in contents.iter().enumerate() {
            self.put(service, &format!("bad-{n}"), content).map_err(failed)?;
        }
        Ok(contents.len())
    }

    async fn delete(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        let entry = self.service(service).join(format!("{}.json", stem(id)));
        fs::remove_file(entry).map_err(failed)
    }
}
