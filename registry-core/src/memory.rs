//! `memory:NAME`: a registry inside the process, for tests and for programs whose parts find each other.
//!
//! All registries of one name in one process are the same one, which lives as long as any of them. It is also
//! the shortest complete backend, to read before writing another.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::backend::{Claim, Kept, Lease, Loss, Protocol, Removal, Source, Terms, Update};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, InstanceId, ServiceName};
use crate::registry::Registry;
use crate::report::{Finding, Report};
use crate::settings::Settings;
use crate::url::RegistryUrl;

/// Changes that a slow source may lag behind before it must list anew.
const BACKLOG: usize = 1024;

static STORES: LazyLock<Mutex<HashMap<String, Weak<Store>>>> = LazyLock::new(Mutex::default);

/// Opens a `memory:` registry.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid): an unknown key, or a bad value.
pub fn open(url: &RegistryUrl) -> Result<Registry> {
    let mut query = url.query();
    let defaults = Settings {
        // A removal here is proof: there is nothing to guard against.
        grace: Duration::ZERO,
        // And no server that many claims at once could overwhelm.
        claims_per_second: 100_000,
        ..Settings::default()
    };
    let settings = defaults.with_query(&mut query)?;
    query.finish()?;
    let store = {
        let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|_, store| store.strong_count() > 0);
        let known = stores.get(url.path()).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let store = Arc::new(Store::default());
            stores.insert(url.path().to_owned(), Arc::downgrade(&store));
            store
        })
    };
    Registry::new(url.to_string(), Memory { store, settings })
}

/// One change, as subscribers of its service hear of it.
type Change = Result<Instance, InstanceId>;

#[derive(Debug)]
struct Service {
    entries: BTreeMap<InstanceId, (u64, Instance)>,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug, Default)]
struct Store {
    services: Mutex<HashMap<ServiceName, Service>>,
    owners: AtomicU64,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, HashMap<ServiceName, Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a service that nobody registers or follows any more, with the room for its changes.
    fn tidy(&self, name: &ServiceName) {
        let mut services = self.lock();
        if services.get(name).is_some_and(|s| s.entries.is_empty() && s.changes.receiver_count() == 0) {
            services.remove(name);
        }
    }
}

impl Service {
    fn of<'a>(services: &'a mut HashMap<ServiceName, Service>, name: &ServiceName) -> &'a mut Service {
        services
            .entry(name.clone())
            .or_insert_with(|| Service { entries: BTreeMap::new(), changes: broadcast::Sender::new(BACKLOG) })
    }

    fn put(&mut self, owner: u64, instance: &Instance) {
        self.entries.insert(instance.id().clone(), (owner, instance.clone()));
        // Nobody may be listening.
        let _ = self.changes.send(Ok(instance.clone()));
    }

    fn remove(&mut self, id: &InstanceId) -> bool {
        let removed = self.entries.remove(id).is_some();
        if removed {
            let _ = self.changes.send(Err(id.clone()));
        }
        removed
    }
}

#[derive(Debug)]
struct Memory {
    store: Arc<Store>,
    settings: Settings,
}

#[async_trait]
impl Protocol for Memory {
    type Source = MemorySource;
    type Lease = MemoryLease;

    fn source(&self, service: &ServiceName) -> MemorySource {
        MemorySource { store: Arc::clone(&self.store), service: service.clone(), changes: None }
    }

    fn lease(&self, instance: &Instance) -> MemoryLease {
        MemoryLease {
            store: Arc::clone(&self.store),
            service: instance.service().clone(),
            id: instance.id().clone(),
            owner: self.store.owners.fetch_add(1, Ordering::Relaxed),
            removals: None,
        }
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let services = self.store.lock();
        let mut names: Vec<_> = services
            .iter()
            .filter(|(_, service)| !service.entries.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        Ok(names)
    }

    async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        if self.store.lock().get_mut(service).is_some_and(|service| service.remove(id)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("no instance {id} of {service} is registered")))
    }

    async fn check(&self) -> Report {
        let here = || Finding::Works("in this process".to_owned());
        Report::new(here(), here(), here())
    }
}

#[derive(Debug)]
struct MemorySource {
    store: Arc<Store>,
    service: ServiceName,
    changes: Option<broadcast::Receiver<Change>>,
}

#[async_trait]
impl Source for MemorySource {
    async fn next(&mut self) -> Result<Update> {
        let Some(changes) = &mut self.changes else {
            let mut services = self.store.lock();
            let service = Service::of(&mut services, &self.service);
            // Under one lock, so that no change falls between the list and the subscription.
            self.changes = Some(service.changes.subscribe());
            return Ok(Update::Full(
                service.entries.values().map(|(_, instance)| instance.clone()).collect(),
            ));
        };
        // The latest change of an id is the one that counts.
        let mut latest = BTreeMap::new();
        let mut take = |change: Change| match change {
            Ok(instance) => latest.insert(instance.id().clone(), Some(instance)),
            Err(id) => latest.insert(id, None),
        };
        match changes.recv().await {
            Ok(change) => drop(take(change)),
            Err(RecvError::Lagged(_) | RecvError::Closed) => {
                self.changes = None;
                return self.next().await;
            }
        }
        loop {
            match changes.try_recv() {
                Ok(change) => drop(take(change)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                Err(TryRecvError::Lagged(_)) => {
                    self.changes = None;
                    return self.next().await;
                }
            }
        }
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (id, instance) in latest {
            match instance {
                Some(instance) => put.push(instance),
                None => gone.push((id, Removal::Announced)),
            }
        }
        Ok(Update::Delta { put, gone })
    }

    fn relist(&mut self) {
        self.changes = None;
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        self.changes = None;
        self.store.tidy(&self.service);
    }
}

#[derive(Debug)]
struct MemoryLease {
    store: Arc<Store>,
    service: ServiceName,
    id: InstanceId,
    owner: u64,
    removals: Option<broadcast::Receiver<Change>>,
}

impl MemoryLease {
    fn kept(&self, service: &Service) -> Kept {
        match service.entries.get(&self.id) {
            None => Kept::Lost,
            Some((owner, _)) if *owner == self.owner => Kept::Kept,
            Some(_) => Kept::Superseded,
        }
    }

    fn withdraw(&self) {
        if let Some(service) = self.store.lock().get_mut(&self.service)
            && self.kept(service) == Kept::Kept
        {
            service.remove(&self.id);
        }
    }
}

#[async_trait]
impl Lease for MemoryLease {
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>> {
        let mut services = self.store.lock();
        let service = Service::of(&mut services, &self.service);
        match (self.kept(service), how) {
            (Kept::Lost | Kept::Kept, _) => {
                service.put(self.owner, instance);
                self.removals = Some(service.changes.subscribe());
                Ok(Some(Terms { ttl: None }))
            }
            (Kept::Superseded, Claim::Again) => Ok(None),
            (Kept::Superseded, Claim::Take) => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "{}/{} is registered, and its owner is alive: choose another id",
                    self.service, self.id
                ),
            )),
        }
    }

    async fn renew(&mut self) -> Result<Kept> {
        Ok(self.kept(Service::of(&mut self.store.lock(), &self.service)))
    }

    async fn write(&mut self, instance: &Instance) -> Result<Kept> {
        let mut services = self.store.lock();
        let service = Service::of(&mut services, &self.service);
        let kept = self.kept(service);
        if kept == Kept::Kept {
            service.put(self.owner, instance);
        }
        Ok(kept)
    }

    async fn verify(&mut self, instance: &Instance) -> Result<Kept> {
        let mut services = self.store.lock();
        let service = Service::of(&mut services, &self.service);
        let as_wanted = service.entries.get(&self.id).is_some_and(|(_, there)| there == instance);
        let kept = self.kept(service);
        Ok(if kept == Kept::Kept && !as_wanted { Kept::Lost } else { kept })
    }

    async fn lost(&mut self) -> Loss {
        loop {
            let Some(removals) = &mut self.removals else { return std::future::pending().await };
            let told = removals.recv().await;
            let concerns_us = match told {
                Ok(Ok(put)) => *put.id() == self.id,
                Ok(Err(gone)) => gone == self.id,
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return std::future::pending().await,
            };
            if concerns_us {
                let kept = self.kept(Service::of(&mut self.store.lock(), &self.service));
                if let Some(loss) = kept.loss() {
                    self.removals = None;
                    return loss;
                }
            }
        }
    }

    async fn release(&mut self) -> Result<()> {
        self.withdraw();
        Ok(())
    }
}

/// A task that ends without releasing, because its runtime ends, is a dead owner too.
impl Drop for MemoryLease {
    fn drop(&mut self) {
        self.withdraw();
        self.removals = None;
        self.store.tidy(&self.service);
    }
}
