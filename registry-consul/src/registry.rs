//! [`ConsulProtocol`]: what makes sources and leases, and what asks an agent about services as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use callsign_core::{
    Error, ErrorKind, Finding, Instance, InstanceId, Protocol, Report, Result, ServiceName, Settings,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::agent::{Agent, Path};
use crate::check::Check;
use crate::lease::ConsulLease;
use crate::query::Scope;
use crate::source::ConsulSource;
use crate::wire::{Entry, Format, Health, Taking, decode};

/// The service that a check registers for a moment.
const PROBE: &str = "callsign-check";

#[derive(Debug)]
pub(crate) struct ConsulProtocol {
    pub(crate) agent: Agent,
    pub(crate) format: Format,
    pub(crate) check: Check,
    pub(crate) scope: Arc<Scope>,
    pub(crate) settings: Settings,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Critical {
    #[serde(default)]
    service_name: String,
    #[serde(default)]
    node: String,
    #[serde(default, rename = "CheckID")]
    id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Gone<'a> {
    node: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
}

impl ConsulProtocol {
    async fn entries(&self, service: &ServiceName) -> Result<Vec<Entry>> {
        let what = format!("list of {service}");
        let answer = self.agent.get(&what, Path::new(&["health", "service", service.as_str()])).await?;
        let answer = self.agent.complete(&what, answer, false)?;
        Ok(self.agent.parsed::<Option<Vec<Entry>>>(&what, &answer)?.unwrap_or_default())
    }

    /// Services of which something is critical: whatever is registered under them may be dead.
    async fn doubtful(&self) -> Result<(BTreeSet<String>, bool)> {
        let what = "list of what is critical";
        let answer = self.agent.get(what, Path::new(&["health", "state", "critical"])).await?;
        let critical: Option<Vec<Critical>> =
            self.agent.parsed(what, &self.agent.complete(what, answer, false)?)?;
        let critical = critical.unwrap_or_default();
        // A node's own check speaks for all that is on it.
        let of_nodes = critical.iter().any(|check| check.service_name.is_empty() && !check.node.is_empty());
        let mut services = BTreeSet::new();
        for check in critical {
            if !check.id.is_empty() && !check.service_name.is_empty() {
                services.insert(check.service_name);
            }
        }
        Ok((services, of_nodes))
    }

    async fn reach(&self) -> Result<String> {
        let what = "status";
        let answer = self.agent.get(what, Path::new(&["status", "leader"])).await?;
        let leader: String = self.agent.parsed(what, &answer)?;
        if leader.is_empty() {
            let text = format!("agent {}: its servers have no leader", self.agent.name());
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        Ok(format!("Consul's agent {}, led by {leader}", self.agent.name()))
    }

    async fn read(&self) -> Result<String> {
        let what = "list of services";
        let answer = self.agent.get(what, Path::new(&["catalog", "services"])).await?;
        let answer = self.agent.complete(what, answer, false)?;
        if self.agent.shuts_out(&answer) {
            return Err(self.agent.shut_out(what));
        }
        Ok("services of the catalog".to_owned())
    }

    async fn write(&self) -> Result<String> {
        let what = "registration of a probe";
        let id = format!("{PROBE}:{:016x}", fastrand::u64(..));
        let path = Path::new(&["agent", "service", "register"]);
        // Critical from the start, so that nobody ever calls it.
        let check = json!({ "TTL": "10s", "Status": "critical", "DeregisterCriticalServiceAfter": "60s" });
        let body = json!({ "ID": id, "Name": PROBE, "Address": "127.0.0.1", "Port": 1, "Check": check });
        let answer = self.agent.put(what, path, &body).await?;
        self.agent.checked(what, answer)?;
        let path = Path::new(&["agent", "service", "deregister", &id]);
        let answer = self.agent.put("removal of a probe", path, &()).await?;
        self.agent.checked("removal of a probe", answer).map(|_| "services of this agent".to_owned())
    }
}

#[async_trait]
impl Protocol for ConsulProtocol {
    type Source = ConsulSource;
    type Lease = ConsulLease;

    fn source(&self, service: &ServiceName) -> ConsulSource {
        let rng = self.settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        ConsulSource::new(self.agent.clone(), service, Arc::clone(&self.scope), self.settings.verify, rng)
    }

    fn lease(&self, instance: &Instance) -> ConsulLease {
        ConsulLease::new(self.agent.clone(), self.format, self.check.clone(), instance, self.settings.ttl)
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let what = "list of services";
        let answer = self.agent.get(what, Path::new(&["catalog", "services"])).await?;
        let answer = self.agent.complete(what, answer, false)?;
        if self.agent.shuts_out(&answer) {
            return Err(self.agent.shut_out(what));
        }
        let all: BTreeMap<String, serde_json::Value> = self.agent.parsed(what, &answer)?;
        let (doubtful, of_nodes) = self.doubtful().await?;
        let mut names = Vec::new();
        for (name, doubt) in
            all.into_keys().map(|name| (of_nodes || doubtful.contains(&name), name)).map(|(d, n)| (n, d))
        {
            let Ok(name) = ServiceName::new(&name) else { continue };
            let is_alive = |entry: &Entry| {
                decode(&name, entry, &self.scope.taking).is_ok_and(|instances| !instances.is_empty())
            };
            if !doubt || self.entries(&name).await?.iter().any(is_alive) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        let what = format!("removal of {service}/{id}");
        let taking = Taking { warnings: true, ..self.scope.taking.clone() };
        let mut removed = false;
        for entry in self.entries(service).await? {
            let stands_for = entry.health() != Health::Critical
                && decode(service, &entry, &taking)
                    .is_ok_and(|instances| instances.iter().any(|instance| instance.id() == id));
            if !stands_for {
                continue;
            }
            // What an agent has itself comes back unless the agent is told.
            let path = Path::new(&["agent", "service", "deregister", &entry.service.id]);
            let answer = self.agent.put(&what, path, &()).await?;
            if answer.status.as_u16() == 404 {
                let path = Path::new(&["catalog", "deregister"]);
                let gone = Gone { node: entry.node(), service_id: &entry.service.id };
                let answer = self.agent.put(&what, path, &gone).await?;
                self.agent.checked(&what, answer)?;
            } else {
                self.agent.checked(&what, answer)?;
            }
            removed = true;
        }
        if removed {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("no instance {id} of {service} is registered in Consul")))
    }

    async fn check(&self) -> Report {
        let outcome = |result: Result<String>| result.map_or_else(Finding::Refused, Finding::Works);
        match self.reach().await {
            Ok(reached) => {
                Report::new(Finding::Works(reached), outcome(self.read().await), outcome(self.write().await))
            }
            Err(error) => {
                let not_tried = || Finding::NotTried("Consul cannot be reached".to_owned());
                Report::new(Finding::Refused(error), not_tried(), not_tried())
            }
        }
    }
}
