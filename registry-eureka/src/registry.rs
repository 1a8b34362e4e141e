//! [`EurekaProtocol`]: what makes sources and leases, and what asks about services as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{
    Error, ErrorKind, Finding, Instance, InstanceId, Protocol, Report, Result, ServiceName, Settings, State,
};
use http::Method;

use crate::ask::{Answered, Ask};
use crate::group::{Group, Member};
use crate::lease::EurekaLease;
use crate::listing::Listing;
use crate::servers::Servers;
use crate::source::EurekaSource;
use crate::wire::{Entry, Format, Found, Taking, decode, encode, name_of, new_incarnation, read_each};

/// The service that a check registers for a moment.
const PROBE: &str = "callsign-check";

#[derive(Debug)]
pub(crate) struct EurekaProtocol {
    pub(crate) servers: Servers,
    pub(crate) group: Arc<Group>,
    pub(crate) format: Format,
    pub(crate) taking: Arc<Taking>,
    pub(crate) poll: Duration,
    pub(crate) settings: Settings,
}

impl EurekaProtocol {
    /// Those entries of an answer that can be read.
    fn entries(&self, what: &str, answered: &Answered) -> Result<Vec<Entry>> {
        if answered.is_absent() {
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        read_each(&answered.answer.body, |read| entries.extend(read.ok()))
            .map_err(|why| self.servers.malformed(what, answered.by, why))?;
        Ok(entries)
    }

    /// All that is registered and can be read.
    async fn all(&self, what: &str) -> Result<Vec<Entry>> {
        let answered = self.servers.ask(what, &Ask::get(&["apps"]).list()).await?;
        if answered.is_absent() {
            self.servers.prove(what).await?;
        }
        let answered = self.servers.checked(what, answered)?;
        self.entries(what, &answered)
    }

    async fn reach(&self) -> Result<String> {
        self.servers.prove("status").await.map(|()| "Eureka".to_owned())
    }

    async fn read(&self) -> Result<String> {
        let entries = self.all("list of applications").await?;
        let apps: BTreeSet<_> = entries.iter().map(|entry| &entry.app).collect();
        Ok(format!("{} applications with {} instances", apps.len(), entries.len()))
    }

    async fn write(&self) -> Result<String> {
        let what = "registration of a probe";
        let id = format!("{PROBE}:{:016x}", fastrand::u64(..));
        // Never up, so that nobody ever calls it.
        let probe = Instance::new(PROBE, "127.0.0.1:1")?.with_id(&id)?.with_state(State::Down);
        let told = encode(self.format, &probe, &new_incarnation(None), false)?;
        let lease = Duration::from_secs(10);
        let ask = Ask::new(Method::POST, &["apps", &told.app]).body(told.json(lease, lease, 0));
        let answered = self.servers.ask(what, &ask).await?;
        self.servers.checked(what, answered)?;
        let what = "removal of a probe";
        let answered =
            self.servers.ask(what, &Ask::new(Method::DELETE, &["apps", &told.app, &told.key])).await?;
        self.servers.checked(what, answered).map(|_| "instances".to_owned())
    }
}

#[async_trait]
impl Protocol for EurekaProtocol {
    type Source = EurekaSource;
    type Lease = EurekaLease;

    fn source(&self, service: &ServiceName) -> EurekaSource {
        let rng = self.settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let listing = Listing::new(service, Arc::clone(&self.taking));
        EurekaSource::new(Member::new(&self.group), listing, self.poll, rng)
    }

    fn lease(&self, instance: &Instance) -> EurekaLease {
        EurekaLease::new(self.servers.clone(), self.format, instance, self.settings.ttl)
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let entries = self.all("list of services").await?;
        let listed = |entry: &Entry| {
            let name = name_of(entry)?;
            matches!(decode(&name, entry, &self.taking), Ok(Found::Listed(_))).then_some(name)
        };
        let names: BTreeSet<_> = entries.iter().filter_map(listed).collect();
        Ok(names.into_iter().collect())
    }

    async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        let what = format!("removal of {service}/{id}");
        let app = service.as_str().to_ascii_uppercase();
        let answered = self.servers.found(&what, &Ask::get(&["apps", &app]), false).await?;
        let mut removed = false;
        for entry in self.entries(&what, &answered)? {
            let stands_for = decode(service, &entry, &self.taking).is_ok_and(|found| match found {
                Found::Listed(instance) | Found::Away(instance) => instance.id() == id,
            });
            if !stands_for {
                continue;
            }
            let ask = Ask::new(Method::DELETE, &["apps", &app, entry.key()]);
            let answered = self.servers.ask(&what, &ask).await?;
            if !answered.is_absent() {
                self.servers.checked(&what, answered)?;
                removed = true;
            }
        }
        if removed {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("no instance {id} of {service} is registered in Eureka")))
    }

    async fn check(&self) -> Report {
        let outcome = |result: Result<String>| result.map_or_else(Finding::Refused, Finding::Works);
        match self.reach().await {
            Ok(reached) => {
                Report::new(Finding::Works(reached), outcome(self.read().await), outcome(self.write().await))
            }
            Err(error) => {
                let not_tried = || Finding::NotTried("Eureka cannot be reached".to_owned());
                Report::new(Finding::Refused(error), not_tried(), not_tried())
            }
        }
    }
}
