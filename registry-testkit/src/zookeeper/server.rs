//! [`ZooKeeper`]: how a ZooKeeper server is run.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::Raw;
use crate::container::Image;
use crate::provider::Provider;
use crate::server::{Kind, Server};
use crate::testbed;

const POM: &str = include_str!("../../testbed/zookeeper/pom.xml");
/// Its configuration, among its data.
const CONFIG: &str = "zoo.cfg";

/// A server that is the only one of its ensemble, with its data on disk.
#[derive(Debug)]
pub struct ZooKeeper {
    program: PathBuf,
    more: Vec<String>,
}

impl ZooKeeper {
    /// The ZooKeeper of the testbed, or that whose `zkServer.sh` is named by `CALLSIGN_ZOOKEEPER_BIN`, or in containers
    /// `CALLSIGN_ZOOKEEPER_IMAGE`, as a server that is not running yet.
    ///
    /// # Errors
    /// There is no ZooKeeper (the error says how to get it), or no free port.
    pub fn server() -> io::Result<Server<Self>> {
        Self::server_with(&[])
    }

    /// The same with more lines of its configuration.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn server_with(more: &[&str]) -> io::Result<Server<Self>> {
        let program = match Provider::chosen()? {
            Provider::Native => testbed::find("zookeeper", "CALLSIGN_ZOOKEEPER_BIN")?,
            Provider::Containers(_) => "zkServer.sh".into(),
        };
        Server::new(Self { program, more: more.iter().map(ToString::to_string).collect() })
    }

    /// Raw access to a server of this kind.
    #[must_use]
    pub fn raw(server: &Server<Self>) -> Raw {
        Raw::new(server.addr())
    }
}

#[async_trait]
impl Kind for ZooKeeper {
    fn name(&self) -> &'static str {
        "ZooKeeper"
    }

    fn prepare(&self, port: u16, _second: u16, data: &Path) -> io::Result<()> {
        let mut lines = vec![
            // Sessions from 1 s on, that expire at most half a second late.
            "tickTime=500".to_owned(),
            "maxSessionTimeout=60000".to_owned(),
            format!("dataDir={}", data.display()),
            "clientPortAddress=127.0.0.1".to_owned(),
            format!("clientPort={port}"),
            "maxClientCnxns=0".to_owned(),
            "admin.enableServer=false".to_owned(),
        ];
        lines.extend(self.more.iter().cloned());
        std::fs::write(data.join(CONFIG), lines.join("\n"))
    }

    fn command(&self, _port: u16, _second: u16, data: &Path) -> (PathBuf, Vec<OsString>) {
        (self.program.clone(), vec!["start-foreground".into(), data.join(CONFIG).into()])
    }

    fn image(&self) -> Image {
        testbed::image("CALLSIGN_ZOOKEEPER_IMAGE", || format!("zookeeper:{}", version()))
    }

    async fn answers(&self, addr: SocketAddr) -> bool {
        Raw::new(addr).is_ready().await
    }
}

/// The version of ZooKeeper itself that the testbed's `pom.xml` names.
fn version() -> &'static str {
    let of = POM.split_once("<artifactId>zookeeper</artifactId>").map(|(_, rest)| rest);
    let of = of.and_then(|rest| rest.split_once("<version>")?.1.split_once("</version>"));
    of.expect("pom.xml names a version").0
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_that_of_the_server() {
        assert!(super::version().starts_with("3."), "{}", super::version());
    }
}
