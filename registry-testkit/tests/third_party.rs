//! A backend of somebody else's passes the conformance suite with what is public: a list in shared memory, polled,
//! whose entries expire. It is also how a fixture is written.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{
    Claim, Error, ErrorKind, Finding, Instance, InstanceId, Kept, Lease, Loss, Protocol, Registry, Report,
    Result, ServiceName, Settings, Source, Terms, Update,
};
use callsign_testkit::fixture::{Caps, Fixture, Group, SecondClaim, Tuning};
use tokio::time::{Instant, sleep};

/// How often lists and own entries are looked at.
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Clone)]
struct Entry {
    owner: u64,
    expires: Instant,
    instance: Instance,
}

/// The "server": entries that it forgets when nobody renews them.
#[derive(Debug, Default)]
struct Shelf {
    entries: Mutex<HashMap<ServiceName, BTreeMap<InstanceId, Entry>>>,
    owners: AtomicU64,
}

impl Shelf {
    fn entries(&self) -> MutexGuard<'_, HashMap<ServiceName, BTreeMap<InstanceId, Entry>>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for service in entries.values_mut() {
            service.retain(|_, entry| entry.expires > now);
        }
        entries.retain(|_, service| !service.is_empty());
        entries
    }

    fn list(&self, service: &ServiceName) -> Vec<Instance> {
        let entries = self.entries();
        entries
            .get(service)
            .into_iter()
            .flat_map(|of| of.values().map(|entry| entry.instance.clone()))
            .collect()
    }

    fn take(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        let removed = self.entries().get_mut(service).and_then(|of| of.remove(id));
        removed.map(drop).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no {id} of {service}")))
    }
}

#[derive(Debug)]
struct ShelfProtocol {
    shelf: Arc<Shelf>,
    settings: Settings,
}

#[async_trait]
impl Protocol for ShelfProtocol {
    type Source = ShelfSource;
    type Lease = ShelfLease;

    fn source(&self, service: &ServiceName) -> ShelfSource {
        ShelfSource { shelf: Arc::clone(&self.shelf), service: service.clone(), last: None }
    }

    fn lease(&self, instance: &Instance) -> ShelfLease {
        ShelfLease {
            shelf: Arc::clone(&self.shelf),
            service: instance.service().clone(),
            id: instance.id().clone(),
            owner: self.shelf.owners.fetch_add(1, Ordering::Relaxed),
            ttl: self.settings.ttl,
            claimed: false,
        }
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let mut names: Vec<_> = self.shelf.entries().keys().cloned().collect();
        names.sort();
        Ok(names)
    }

    async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        self.shelf.take(service, id)
    }

    async fn check(&self) -> Report {
        let works = || Finding::Works(String::new());
        Report::new(works(), works(), works())
    }
}

#[derive(Debug)]
struct ShelfSource {
    shelf: Arc<Shelf>,
    service: ServiceName,
    last: Option<Vec<Instance>>,
}

#[async_trait]
impl Source for ShelfSource {
    async fn next(&mut self) -> Result<Update> {
        loop {
            let list = self.shelf.list(&self.service);
            if self.last.as_ref() != Some(&list) {
                self.last = Some(list.clone());
                return Ok(Update::Full(list));
            }
            sleep(POLL).await;
        }
    }

    fn relist(&mut self) {
        self.last = None;
    }
}

#[derive(Debug)]
struct ShelfLease {
    shelf: Arc<Shelf>,
    service: ServiceName,
    id: InstanceId,
    owner: u64,
    ttl: Duration,
    claimed: bool,
}

impl ShelfLease {
    fn with<T>(&self, act: impl FnOnce(Option<&mut Entry>) -> T) -> T {
        act(self.shelf.entries().get_mut(&self.service).and_then(|of| of.get_mut(&self.id)))
    }

    fn kept(&self, then: impl FnOnce(&mut Entry)) -> Kept {
        self.with(|entry| match entry {
            None => Kept::Lost,
            Some(entry) if entry.owner == self.owner => {
                then(entry);
                Kept::Kept
            }
            Some(_) => Kept::Superseded,
        })
    }
}

#[async_trait]
impl Lease for ShelfLease {
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>> {
        if how == Claim::Again && self.kept(|_| {}) == Kept::Superseded {
            return Ok(None);
        }
        let entry =
            Entry { owner: self.owner, expires: Instant::now() + self.ttl, instance: instance.clone() };
        self.shelf.entries().entry(self.service.clone()).or_default().insert(self.id.clone(), entry);
        self.claimed = true;
        Ok(Some(Terms { ttl: Some(self.ttl) }))
    }

    async fn renew(&mut self) -> Result<Kept> {
        Ok(self.kept(|entry| entry.expires = Instant::now() + self.ttl))
    }

    async fn write(&mut self, instance: &Instance) -> Result<Kept> {
        Ok(self.kept(|entry| entry.instance = instance.clone()))
    }

    async fn verify(&mut self, instance: &Instance) -> Result<Kept> {
        let mut same = false;
        let kept = self.kept(|entry| same = entry.instance == *instance);
        Ok(if kept == Kept::Kept && !same { Kept::Lost } else { kept })
    }

    async fn lost(&mut self) -> Loss {
        loop {
            sleep(POLL).await;
            if let Some(loss) = self.kept(|_| {}).loss().filter(|_| self.claimed) {
                return loss;
            }
        }
    }

    async fn release(&mut self) -> Result<()> {
        if self.kept(|_| {}) == Kept::Kept {
            self.shelf.take(&self.service, &self.id)?;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct ShelfFixture(Arc<Shelf>);

#[async_trait]
impl Fixture for ShelfFixture {
    fn caps(&self) -> Caps {
        Caps {
            lacks: vec![Group::Outage],
            second_claim: SecondClaim::TakesOver(Duration::from_secs(1)),
            ttl: Some(Duration::from_secs(1)),
            malformed: 0,
            seeds: 5,
            ..Caps::default()
        }
    }

    fn open(&self, tuning: &Tuning) -> Result<Registry> {
        let mut settings = Settings::default();
        let tuned = [
            (&mut settings.ttl, tuning.ttl),
            (&mut settings.grace, tuning.grace),
            (&mut settings.drain, tuning.drain),
            (&mut settings.verify, tuning.verify),
        ];
        for (setting, wanted) in tuned {
            *setting = wanted.unwrap_or(*setting);
        }
        Registry::new("shelf", ShelfProtocol { shelf: Arc::clone(&self.0), settings })
    }

    async fn count(&self, service: &ServiceName) -> Result<usize> {
        Ok(self.0.list(service).len())
    }

    async fn inject(&self, service: &ServiceName, id: &InstanceId, address: &str) -> Result<()> {
        let instance = Instance::new(service, address)?.with_id(id.as_str())?;
        let expires = Instant::now() + Duration::from_secs(3600);
        let entry = Entry { owner: u64::MAX, expires, instance };
        self.0.entries().entry(service.clone()).or_default().insert(id.clone(), entry);
        Ok(())
    }

    /// It holds instances, not bytes: none can be malformed.
    async fn inject_malformed(&self, _: &ServiceName) -> Result<usize> {
        Ok(0)
    }

    async fn delete(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        self.0.take(service, id)
    }

    async fn revoke(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        self.0.take(service, id)
    }
}

callsign_testkit::conformance! {
    fixture: ShelfFixture::default(),
    registering: run,
    leasing: run,
    raw: run,
    outage: ignore "there is no server",
}
