//! Eureka: [`Eureka`], how a server is run; [`Api`], raw access to it; and [`EurekaFixture`], a registry in it.

mod api;
mod secured;
mod server;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Address, Error, ErrorKind, InstanceId, Registry, Result, ServiceName};
use serde_json::{Value, json};
use tokio::sync::Mutex;

pub use api::{Api, BASE, path};
pub use secured::SecuredEureka;
pub use server::Eureka;

use crate::fixture::{Caps, Fixture, Open, SecondClaim, Served, Tuning, with_query};
use crate::proxy::Proxy;
use crate::server::Server;

/// How often the fixture's registries ask: cases want to see what was so for some tenths of a second.
const POLL: &str = "poll=50ms";

/// A registry in a Eureka of its own, reached through a link that can be cut.
#[derive(Debug)]
pub struct EurekaFixture {
    open: Open,
    /// What is asked for: each service by itself, or everything.
    fetch: &'static str,
    server: Mutex<Server<Eureka>>,
    raw: Api,
    link: Proxy,
}

impl EurekaFixture {
    /// Starts a Eureka.
    ///
    /// # Panics
    /// Eureka cannot be found or started.
    pub async fn start(open: Open) -> Self {
        Self::start_in(Eureka::server(), open).await
    }

    /// Starts this one.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_in(server: io::Result<Server<Eureka>>, open: Open) -> Self {
        let mut server = server.unwrap_or_else(|error| panic!("{error}"));
        server.start().await.unwrap_or_else(|error| panic!("{error}"));
        let (raw, link) = (Api::new(server.addr()), Proxy::start(server.addr()).await.unwrap());
        Self { open, fetch: "each", server: Mutex::new(server), raw, link }
    }

    /// The same, where everything is asked for at once.
    #[must_use]
    pub fn asking_for_all(self) -> Self {
        Self { fetch: "all", ..self }
    }

    /// Where the server is, past the link.
    pub async fn addr(&self) -> SocketAddr {
        self.server.lock().await.addr()
    }

    /// Raw access to the server, past the link.
    #[must_use]
    pub fn raw(&self) -> &Api {
        &self.raw
    }
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Other, error.to_string())
}

/// The id of an entry of ours in Eureka, for the ids of tests.
fn key(id: &InstanceId) -> &str {
    id.as_str()
}

#[async_trait]
impl Fixture for EurekaFixture {
    fn caps(&self) -> Caps {
        Caps {
            second_claim: SecondClaim::TakesOver(Duration::from_secs(6)),
            ttl: Some(Duration::from_secs(4)),
            // It is noticed by a renewal or a look at the own entry.
            restored: Duration::from_secs(8),
            // It has nothing on disk: whatever is down is wiped.
            recovers: Duration::from_secs(8),
            back: Duration::from_secs(8),
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
        let (host, port) = (address.host(), i64::from(address.port()));
        self.raw.register(service.as_str(), key(id), host, port, &json!({})).await.map_err(failed)
    }

    async fn inject_malformed(&self, service: &ServiceName) -> Result<usize> {
        let marked =
            |key: &str, value: &str| json!({ "metadata": { "callsign-incarnation": "0", key: value } });
        let bad = [
            (0, json!({})),
            (70_000, json!({})),
            (1, json!({ "hostName": "not an address", "ipAddr": "nor this" })),
            (1, marked("callsign-state", "odd")),
            (1, marked("callsign-weight", "heavy")),
            (1, marked("callsign-metadata", "{")),
            (1, marked("callsign-id", "\u{7}")),
            (1, json!({ "metadata": { "k": "x".repeat(2 << 20) } })),
        ];
        for (n, (port, more)) in bad.iter().enumerate() {
            let id = format!("bad-{n}");
            self.raw.register(service.as_str(), &id, "10.0.0.1", *port, more).await.map_err(failed)?;
        }
        Ok(bad.len())
    }

    async fn delete(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        match self.raw.delete(service.as_str(), key(id)).await.map_err(failed)? {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::NotFound, format!("Eureka has no {id} of {service}"))),
        }
    }

    async fn revoke(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        // An instance and its lease are one.
        self.delete(service, id).await
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
impl Served for EurekaFixture {
    async fn start_with(open: Open) -> Self {
        Self::start(open).await
    }

    fn url_via(&self, addr: SocketAddr) -> String {
        format!("eureka://{addr}{BASE}?{POLL}&fetch={}", self.fetch)
    }

    async fn another_link(&self) -> Proxy {
        Proxy::start(self.addr().await).await.unwrap()
    }

    fn open_via(&self, link: &Proxy, tuning: &Tuning) -> Result<Registry> {
        (self.open)(&with_query(&self.url_via(link.addr()), &tuning.query()))
    }

    async fn written(&self, service: &ServiceName) -> Result<BTreeSet<(String, String)>> {
        let instances = self.raw.instances(service.as_str()).await.map_err(failed)?;
        let of =
            |it: &Value| (it["instanceId"].to_string(), it["leaseInfo"]["registrationTimestamp"].to_string());
        Ok(instances.iter().map(of).collect())
    }

    async fn write_many(&self, service: &ServiceName, numbers: &[usize], at: u64) -> Result<()> {
        for n in numbers {
            let host = format!("10.0.{}.{}", n / 250, n % 250);
            let more = json!({ "metadata": { "at": at.to_string() }, "lastDirtyTimestamp": at + 1 });
            self.raw
                .register(service.as_str(), &format!("i{n}"), &host, 50051, &more)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    async fn taken(&self, service: &ServiceName) -> Result<usize> {
        // Whether each has expired is not asked of a thousand.
        self.raw.instances(service.as_str()).await.map(|all| all.len()).map_err(failed)
    }

    async fn delete_all(&self, service: &ServiceName) -> Result<usize> {
        let mut deleted = 0;
        for instance in self.raw.instances(service.as_str()).await.map_err(failed)? {
            let id = instance["instanceId"].as_str().unwrap_or_default();
            deleted += usize::from(self.raw.delete(service.as_str(), id).await.map_err(failed)?);
        }
        Ok(deleted)
    }
}
