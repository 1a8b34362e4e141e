//! ZooKeeper: [`ZooKeeper`], how a server is run; [`Raw`], access to it past all client libraries; and
//! [`ZooKeeperFixture`], a registry in it.

mod partition;
mod raw;
mod secured;
mod server;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Address, Error, ErrorKind, InstanceId, Registry, Result, ServiceName};
use serde_json::json;
use tokio::sync::Mutex;

pub use partition::PartitionedEnsemble;
pub use raw::{Held, Node, Raw, Role};
pub use secured::{Flagged, SecuredServer};
pub use server::ZooKeeper;

use crate::fixture::{Caps, Fixture, Open, SecondClaim, Served, Tuning, with_query};
use crate::proxy::Proxy;
use crate::server::Server;

/// Where the fixture's registries are. Not the default, so that it shows that the path is heeded.
const BASE: &str = "/tests/services";

/// The bytes that a fixture's registry writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Curator's and Spring Cloud's JSON.
    Curator,
    /// Go kit's bare addresses.
    GoKit,
}

/// A registry in a ZooKeeper of its own, reached through a link that can be cut.
#[derive(Debug)]
pub struct ZooKeeperFixture {
    open: Open,
    format: Format,
    server: Mutex<Server<ZooKeeper>>,
    raw: Raw,
    link: Proxy,
    secured: Option<secured::Shown>,
}

impl ZooKeeperFixture {
    /// Starts a ZooKeeper, for a registry with the default format.
    ///
    /// # Panics
    /// ZooKeeper cannot be found or started.
    pub async fn start(open: Open) -> Self {
        Self::with_format(open, Format::Curator).await
    }

    /// Starts a ZooKeeper, for a registry with another format.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn with_format(open: Open, format: Format) -> Self {
        Self::with_more(open, format, &[]).await
    }

    /// Starts a ZooKeeper with more lines of its configuration.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn with_more(open: Open, format: Format, more: &[&str]) -> Self {
        let mut server = ZooKeeper::server_with(more).unwrap_or_else(|error| panic!("{error}"));
        server.start().await.unwrap_or_else(|error| panic!("{error}"));
        let (raw, link) = (Raw::new(server.addr()), Proxy::start(server.addr()).await.unwrap());
        Self { open, format, server: Mutex::new(server), raw, link, secured: None }
    }

    /// Starts a ZooKeeper that is spoken to over TLS, and by [`Raw`] in the clear.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn secured(open: Open) -> Self {
        let secured = SecuredServer::start().await.unwrap_or_else(|error| panic!("{error}"));
        let raw = secured.raw();
        let (server, link, shown) = secured.into_parts();
        let secure = server.second().addr();
        let server = Mutex::new(server);
        let fixture = Self { open, format: Format::Curator, server, raw, link, secured: Some(shown) };
        // The first that it speaks TLS with waits for Java to load all of it, longer than the short sessions of tests may.
        let first =
            open(&with_query(&fixture.url_via(secure), "ttl=40s")).unwrap_or_else(|error| panic!("{error}"));
        first.services().await.unwrap_or_else(|error| panic!("{}", error.chain()));
        fixture
    }

    /// Raw access to the server, past the link.
    #[must_use]
    pub fn raw(&self) -> &Raw {
        &self.raw
    }

    /// The node of a service.
    #[must_use]
    pub fn path(&self, service: &ServiceName) -> String {
        format!("{BASE}/{service}")
    }

    fn entry(&self, service: &ServiceName, id: &str) -> String {
        format!("{}/{id}", self.path(service))
    }

    fn value(&self, service: &ServiceName, id: &str, address: &Address, at: Option<u64>) -> Vec<u8> {
        match self.format {
            Format::GoKit => address.to_string().into_bytes(),
            Format::Curator => {
                let class = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance";
                let payload = at.map(|at| {
                    json!({ "@class": class, "id": "app", "name": service.as_str(), "metadata": { "at": at.to_string() } })
                });
                let value = json!({
                    "name": service.as_str(), "id": id, "address": address.host(), "port": address.port(),
                    "payload": payload,
                });
                value.to_string().into_bytes()
            }
        }
    }
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Other, error.to_string())
}

#[async_trait]
impl Fixture for ZooKeeperFixture {
    fn caps(&self) -> Caps {
        Caps {
            second_claim: SecondClaim::TakesOver(Duration::from_secs(2)),
            ttl: Some(Duration::from_secs(3)),
            one_session: true,
            restored: Duration::from_secs(2),
            // A server that was wiped has forgotten the session, and refuses whoever has seen more than it knows:
            // the client gives its session up after 1.4 times its timeout.
            recovers: Duration::from_secs(6 + 5),
            stores_state: self.format == Format::Curator,
            seeds: 4,
            ..Caps::default()
        }
    }

    fn open(&self, tuning: &Tuning) -> Result<Registry> {
        self.open_via(&self.link, tuning)
    }

    async fn count(&self, service: &ServiceName) -> Result<usize> {
        self.raw.children(&self.path(service)).await.map(|children| children.len()).map_err(failed)
    }

    async fn inject(&self, service: &ServiceName, id: &InstanceId, address: &str) -> Result<()> {
        let value = self.value(service, id.as_str(), &address.parse()?, None);
        self.raw.put(&self.entry(service, id.as_str()), &value).await.map_err(failed)
    }

    async fn inject_malformed(&self, service: &ServiceName) -> Result<usize> {
        let large =
            format!(r#"{{"address":"10.0.0.1","port":1,"payload":null,"x":"{}"}}"#, "x".repeat(900 << 10));
        let values: [&[u8]; 10] = [
            b"",
            b"null",
            b"{\"address\":",
            b"{\"name\":\"x\"}",
            b"{\"address\":null,\"port\":1}",
            b"{\"address\":\"10.0.0.1\",\"port\":0}",
            b"{\"address\":\"10.0.0.1\",\"port\":70000}",
            b"\xff\xfe\xfd",
            b"not an address",
            large.as_bytes(),
        ];
        for (n, value) in values.iter().enumerate() {
            self.raw.put(&self.entry(service, &format!("bad-{n}")), value).await.map_err(failed)?;
        }
        Ok(values.len())
    }

    async fn delete(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        let path = self.entry(service, id.as_str());
        match self.raw.delete(&path).await.map_err(failed)? {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::NotFound, format!("there is no node {path}"))),
        }
    }

    async fn revoke(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        let path = self.entry(service, id.as_str());
        let node = self.raw.get(&path).await.map_err(failed)?;
        let node = node.filter(|node| node.owner != 0);
        let node = node.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no session owns {path}")))?;
        self.raw.end_session(node.owner).await.map_err(failed)
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
impl Served for ZooKeeperFixture {
    async fn start_with(open: Open) -> Self {
        Self::start(open).await
    }

    fn url_via(&self, addr: SocketAddr) -> String {
        let format = match self.format {
            Format::Curator => "curator",
            Format::GoKit => "gokit",
        };
        match &self.secured {
            Some(shown) => format!("zk+tls://{addr}{BASE}?format={format}&{}", shown.files()),
            None => format!("zk://{addr}{BASE}?format={format}"),
        }
    }

    async fn another_link(&self) -> Proxy {
        let server = self.server.lock().await;
        let addr = if self.secured.is_some() { server.second().addr() } else { server.addr() };
        Proxy::start(addr).await.unwrap()
    }

    fn open_via(&self, link: &Proxy, tuning: &Tuning) -> Result<Registry> {
        (self.open)(&with_query(&self.url_via(link.addr()), &tuning.query()))
    }

    async fn written(&self, service: &ServiceName) -> Result<BTreeSet<(String, String)>> {
        let mut written = BTreeSet::new();
        for name in self.raw.children(&self.path(service)).await.map_err(failed)? {
            if let Some(node) = self.raw.get(&self.entry(service, &name)).await.map_err(failed)? {
                written.insert((name, node.created.to_string()));
            }
        }
        Ok(written)
    }

    async fn write_many(&self, service: &ServiceName, numbers: &[usize], at: u64) -> Result<()> {
        let mut nodes = Vec::new();
        for n in numbers {
            let address: Address = format!("10.0.{}.{}:50051", n / 250, n % 250).parse()?;
            let id = address.to_string();
            nodes.push((self.entry(service, &id), self.value(service, &id, &address, Some(at))));
        }
        self.raw.put_many(&nodes).await.map_err(failed)
    }

    async fn delete_all(&self, service: &ServiceName) -> Result<usize> {
        let names = self.raw.children(&self.path(service)).await.map_err(failed)?;
        let mut deleted = 0;
        for name in names {
            deleted += usize::from(self.raw.delete(&self.entry(service, &name)).await.map_err(failed)?);
        }
        Ok(deleted)
    }
}
