//! Consul: [`Consul`], how an agent is run; [`Api`], raw access to it; and [`ConsulFixture`], a registry in it.

mod api;
mod partition;
mod secured;
mod server;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Address, Error, ErrorKind, InstanceId, Registry, Result, ServiceName};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tokio::sync::Mutex;

pub use api::Api;
pub use partition::PartitionedDatacenter;
pub use secured::SecuredAgent;
pub use server::{Consul, Datacenter, MANAGEMENT};

use crate::fixture::{Caps, Fixture, Open, SecondClaim, Served, Tuning, with_query};
use crate::proxy::Proxy;
use crate::server::Server;

/// How many nodes many entries are spread over.
const NODES: usize = 50;
/// What Consul takes in one transaction.
const OPERATIONS: usize = 64;

/// A registry in a Consul of its own, reached through a link that can be cut.
#[derive(Debug)]
pub struct ConsulFixture {
    open: Open,
    server: Mutex<Server<Consul>>,
    raw: Api,
    link: Proxy,
}

impl ConsulFixture {
    /// Starts a Consul.
    ///
    /// # Panics
    /// Consul cannot be found or started.
    pub async fn start(open: Open) -> Self {
        Self::start_in(Consul::server(), open).await
    }

    /// The same with an agent in Consul's mode for development, which keeps nothing on disk.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_dev(open: Open) -> Self {
        Self::start_in(Consul::dev(), open).await
    }

    async fn start_in(server: io::Result<Server<Consul>>, open: Open) -> Self {
        let mut server = server.unwrap_or_else(|error| panic!("{error}"));
        server.start().await.unwrap_or_else(|error| panic!("{error}"));
        let (raw, link) = (Api::new(server.addr()), Proxy::start(server.addr()).await.unwrap());
        Self { open, server: Mutex::new(server), raw, link }
    }

    /// Raw access to the agent, past the link.
    #[must_use]
    pub fn raw(&self) -> &Api {
        &self.raw
    }

    /// The last lines of the agent's log.
    pub async fn log(&self) -> String {
        self.server.lock().await.log()
    }

    /// The id of an entry in the agent: ours has its service before it.
    async fn entry(&self, service: &ServiceName, id: &InstanceId) -> Result<String> {
        let services = self.raw.get("agent/services").await.map_err(failed)?;
        let services = services.as_object().cloned().unwrap_or_default();
        let found = services
            .into_iter()
            .find(|(key, value)| value["Service"] == service.as_str() && *key == format!("{service}:{id}"));
        found
            .map(|(key, _)| utf8_percent_encode(&key, NON_ALPHANUMERIC).to_string())
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("the agent has no {id} of {service}")))
    }
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Other, error.to_string())
}

#[async_trait]
impl Fixture for ConsulFixture {
    fn caps(&self) -> Caps {
        Caps {
            second_claim: SecondClaim::TakesOver(Duration::from_secs(6)),
            ttl: Some(Duration::from_secs(2)),
            // An agent that has learnt of a server tells it nothing for 3 s at most (`serverUpIntv` in its `agent/ae/ae.go`).
            expires: Duration::from_secs(3 + 2),
            // It is noticed by a renewal or a look at the own entry.
            restored: Duration::from_secs(6),
            metadata: 16 * 1024,
            seeds: 4,
            ..Caps::default()
        }
    }

    fn open(&self, tuning: &Tuning) -> Result<Registry> {
        self.open_via(&self.link, tuning)
    }

    async fn count(&self, service: &ServiceName) -> Result<usize> {
        self.raw.alive(service.as_str()).await.map(|alive| alive.len()).map_err(failed)
    }

    async fn inject(&self, service: &ServiceName, id: &InstanceId, address: &str) -> Result<()> {
        let address: Address = address.parse()?;
        // By the id that ours would have, with the mark of somebody whose registration is long forgotten.
        let body = json!({
            "ID": format!("{service}:{id}"), "Name": service.as_str(),
            "Address": address.host(), "Port": address.port(),
            "Meta": { "callsign-incarnation": "0", "callsign-id": id.as_str() },
        });
        self.raw.put("agent/service/register", &body).await.map(drop).map_err(failed)
    }

    async fn inject_malformed(&self, service: &ServiceName) -> Result<usize> {
        let marked = |state: &str| json!({ "callsign-incarnation": "0", "callsign-state": state });
        let bad = [
            json!({ "Port": 0 }),
            json!({ "Port": 70_000 }),
            json!({ "Port": 1, "Address": "not an address" }),
            json!({ "Port": 1, "Meta": marked("odd") }),
            json!({ "Port": 1, "Meta": { "callsign-incarnation": "0", "callsign-metadata-0": "{" } }),
            json!({ "Port": 1, "Meta": { "callsign-incarnation": "0", "callsign-id": "\u{7}" } }),
        ];
        for (n, entry) in bad.iter().enumerate() {
            let mut body = json!({ "ID": format!("{service}-bad-{n}"), "Name": service.as_str(), "Address": "10.0.0.1" });
            for (key, value) in entry.as_object().into_iter().flatten() {
                body[key] = value.clone();
            }
            self.raw.put("agent/service/register", &body).await.map_err(failed)?;
        }
        Ok(bad.len())
    }

    async fn delete(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        self.raw.deregister(&self.entry(service, id).await?).await.map_err(failed)
    }

    async fn revoke(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        // What has no check any more has nothing to renew.
        let entry = self.entry(service, id).await?;
        self.raw.deregister(&entry).await.map_err(failed)
    }

    async fn start(&self) -> Result<()> {
        self.server.lock().await.start().await.map_err(failed)
    }

    async fn kill(&self) -> Result<()> {
        self.server.lock().await.kill();
        Ok(())
    }

    async fn pause(&self) -> Result<()> {
        self.server.lock().await.pause().map_err(failed)
    }

    async fn resume(&self) -> Result<()> {
        self.server.lock().await.resume().map_err(failed)
    }

    async fn wipe(&self) -> Result<()> {
        self.server.lock().await.wipe();
        Ok(())
    }

    fn link(&self) -> Result<&Proxy> {
        Ok(&self.link)
    }
}

#[async_trait]
impl Served for ConsulFixture {
    async fn start_with(open: Open) -> Self {
        Self::start(open).await
    }

    fn url_via(&self, addr: SocketAddr) -> String {
        format!("consul://{addr}")
    }

    async fn another_link(&self) -> Proxy {
        let addr = self.server.lock().await.addr();
        Proxy::start(addr).await.unwrap()
    }

    fn open_via(&self, link: &Proxy, tuning: &Tuning) -> Result<Registry> {
        (self.open)(&with_query(&self.url_via(link.addr()), &tuning.query()))
    }

    async fn written(&self, service: &ServiceName) -> Result<BTreeSet<(String, String)>> {
        let entries = self.raw.get(&format!("health/service/{service}")).await.map_err(failed)?;
        let of = |entry: &serde_json::Value| {
            let service = &entry["Service"];
            (service["ID"].to_string(), service["CreateIndex"].to_string())
        };
        Ok(entries.as_array().into_iter().flatten().map(of).collect())
    }

    async fn write_many(&self, service: &ServiceName, numbers: &[usize], at: u64) -> Result<()> {
        // To the catalog directly, as if many agents had.
        let node = |n: usize| format!("node-{}", n % NODES);
        let nodes: BTreeSet<_> = numbers.iter().map(|&n| node(n)).collect();
        let nodes = nodes.into_iter().map(
            |node| json!({ "Node": { "Verb": "set", "Node": { "Node": node, "Address": "10.0.0.1" } } }),
        );
        let services = numbers.iter().map(|&n| {
            let service = json!({
                "ID": format!("i{n}"), "Service": service.as_str(), "Address": format!("10.0.{}.{}", n / 250, n % 250),
                "Port": 50051, "Meta": { "at": at.to_string() },
            });
            json!({ "Service": { "Verb": "set", "Node": node(n), "Service": service } })
        });
        let operations: Vec<_> = nodes.chain(services).collect();
        for some in operations.chunks(OPERATIONS) {
            self.raw.put("txn", &json!(some)).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn taken(&self, service: &ServiceName) -> Result<usize> {
        // The agent tells the catalog of several at once.
        let services = self.raw.get("agent/services").await.map_err(failed)?;
        let services = services.as_object().into_iter().flatten();
        Ok(services.filter(|(_, value)| value["Service"] == service.as_str()).count())
    }

    async fn delete_all(&self, service: &ServiceName) -> Result<usize> {
        let entries = self.raw.get(&format!("health/service/{service}")).await.map_err(failed)?;
        let entries = entries.as_array().cloned().unwrap_or_default();
        for entry in &entries {
            let id = entry["Service"]["ID"].as_str().unwrap_or_default();
            let id = utf8_percent_encode(id, NON_ALPHANUMERIC).to_string();
            self.raw.deregister(&id).await.map_err(failed)?;
        }
        Ok(entries.len())
    }
}
