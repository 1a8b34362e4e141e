//! etcd: [`Etcd`], how to run it, alone or as a member of several; [`Gateway`], raw access to it; and
//! [`EtcdFixture`], a registry in it.

mod events;
mod gateway;
mod member;
mod partition;
mod secured;
mod users;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Error, ErrorKind, InstanceId, Registry, Result, ServiceName};
use tokio::sync::Mutex;

pub use events::{Event, Events};
pub use gateway::{Entry, Gateway};
pub use member::Etcd;
pub use partition::PartitionedCluster;
pub use secured::SecuredCluster;
pub use users::Permission;

use crate::fixture::{Caps, Fixture, Open, SecondClaim, Served, Tuning, with_query};
use crate::proxy::Proxy;
use crate::server::Server;

/// The bytes that a fixture's registry writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// gRPC-Go's naming.
    Grpc,
    /// Go kit's bare addresses.
    GoKit,
}

/// A registry in an etcd of its own, reached through a link that can be cut.
#[derive(Debug)]
pub struct EtcdFixture {
    open: Open,
    format: Format,
    server: Mutex<Server<Etcd>>,
    raw: Gateway,
    link: Proxy,
}

/// Where the fixture's registries are. Not the default, so that it shows that the prefix is heeded.
const PREFIX: &str = "tests/services";

impl EtcdFixture {
    /// Starts an etcd, for a registry with the default format.
    ///
    /// # Panics
    /// etcd cannot be found or started.
    pub async fn start(open: Open) -> Self {
        Self::with_format(open, Format::Grpc).await
    }

    /// Starts an etcd, for a registry with another format.
    ///
    /// # Panics
    /// etcd cannot be found or started.
    pub async fn with_format(open: Open, format: Format) -> Self {
        let mut server = Etcd::server().unwrap_or_else(|error| panic!("{error}"));
        server.start().await.unwrap_or_else(|error| panic!("{error}"));
        let (raw, link) = (Gateway::new(server.addr()), Proxy::start(server.addr()).await.unwrap());
        Self { open, format, server: Mutex::new(server), raw, link }
    }

    /// Raw access to the server, past the link.
    #[must_use]
    pub fn raw(&self) -> &Gateway {
        &self.raw
    }

    /// The registry's URL, through the link.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_via(self.link.addr())
    }

    /// Where the server itself serves.
    pub async fn raw_addr(&self) -> SocketAddr {
        self.server.lock().await.addr()
    }

    /// The prefix of a service's keys, as the format writes it.
    #[must_use]
    pub fn prefix(&self, service: &ServiceName) -> String {
        let slash = if self.format == Format::GoKit { "/" } else { "" };
        format!("{slash}{PREFIX}/{service}/")
    }

    /// The entry of an instance whose id needs no escapes.
    async fn entry(&self, service: &ServiceName, id: &InstanceId) -> Result<Entry> {
        let key = format!("{}{id}", self.prefix(service));
        let entries = self.raw.list(&self.prefix(service)).await.map_err(failed)?;
        entries
            .into_iter()
            .find(|entry| entry.key == key)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no key {key}")))
    }
}

#[allow(clippy::needless_pass_by_value)]
fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Other, error.to_string())
}

#[async_trait]
impl Fixture for EtcdFixture {
    fn caps(&self) -> Caps {
        Caps {
            second_claim: SecondClaim::TakesOver(Duration::from_secs(2)),
            // The least that etcd grants at its default election timeout.
            ttl: Some(Duration::from_secs(2)),
            restored: Duration::from_secs(2),
            stores_state: self.format == Format::Grpc,
            seeds: 4,
            ..Caps::default()
        }
    }

    fn open(&self, tuning: &Tuning) -> Result<Registry> {
        self.open_via(&self.link, tuning)
    }

    async fn count(&self, service: &ServiceName) -> Result<usize> {
        let mut count = 0;
        for slash in ["", "/"] {
            count += self.raw.count(&format!("{slash}{PREFIX}/{service}/")).await.map_err(failed)?;
        }
        Ok(count)
    }

    async fn inject(&self, service: &ServiceName, id: &InstanceId, address: &str) -> Result<()> {
        let value = match self.format {
            Format::Grpc => format!(r#"{{"Op":0,"Addr":"{address}","Metadata":null}}"#),
            Format::GoKit => address.to_owned(),
        };
        self.raw.put(&format!("{}{id}", self.prefix(service)), value.as_bytes(), 0).await.map_err(failed)
    }

    async fn inject_malformed(&self, service: &ServiceName) -> Result<usize> {
        let large = format!(r#"{{"Op":0,"Addr":"10.0.0.1:1","Metadata":"{}"}}"#, "x".repeat(2 << 20));
        let values: [&[u8]; 10] = [
            b"",
            b"null",
            b"{\"Addr\":",
            b"{\"Op\":0}",
            b"{\"Addr\":null}",
            b"{\"Addr\":\"10.0.0.1:0\"}",
            b"{\"Addr\":\"10.0.0.1:70000\"}",
            b"\xff\xfe\xfd",
            b"not an address",
            large.as_bytes(),
        ];
        for (n, value) in values.iter().enumerate() {
            self.raw.put(&format!("{}bad-{n}", self.prefix(service)), value, 0).await.map_err(failed)?;
        }
        Ok(values.len())
    }

    async fn delete(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        self.raw.delete(&format!("{}{id}", self.prefix(service))).await.map_err(failed)
    }

    async fn revoke(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        self.raw.revoke(self.entry(service, id).await?.lease).await.map_err(failed)
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
impl Served for EtcdFixture {
    async fn start_with(open: Open) -> Self {
        Self::start(open).await
    }

    fn url_via(&self, addr: SocketAddr) -> String {
        let format = match self.format {
            Format::Grpc => "grpc",
            Format::GoKit => "gokit",
        };
        format!("etcd://{addr}/{PREFIX}?format={format}")
    }

    async fn another_link(&self) -> Proxy {
        Proxy::start(self.raw_addr().await).await.unwrap()
    }

    fn open_via(&self, link: &Proxy, tuning: &Tuning) -> Result<Registry> {
        (self.open)(&with_query(&self.url_via(link.addr()), &tuning.query()))
    }

    async fn written(&self, service: &ServiceName) -> Result<BTreeSet<(String, String)>> {
        let entries = self.raw.list(&self.prefix(service)).await.map_err(failed)?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.lease.to_string())).collect())
    }

    async fn write_many(&self, service: &ServiceName, numbers: &[usize], at: u64) -> Result<()> {
        let prefix = self.prefix(service);
        let entry = |n: &usize| {
            let address = format!("10.0.{}.{}:50051", n / 250, n % 250);
            let value = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":{{"at":"{at}"}}}}"#);
            (format!("{prefix}{address}"), value.into_bytes())
        };
        let entries: Vec<_> = numbers.iter().map(entry).collect();
        self.raw.put_many(&entries, 0).await.map_err(failed)
    }

    async fn delete_all(&self, service: &ServiceName) -> Result<usize> {
        let deleted = self.raw.delete_prefix(&self.prefix(service)).await.map_err(failed)?;
        usize::try_from(deleted).map_err(|error| Error::new(ErrorKind::Other, error.to_string()))
    }
}
