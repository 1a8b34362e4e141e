//! [`ZooKeeper`]: how a ZooKeeper server is run.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::Raw;
use crate::container::Image;
use crate::ports::Port;
use crate::provider::Provider;
use crate::server::{Kind, Server};
use crate::testbed;

const POM: &str = include_str!("../../testbed/zookeeper/pom.xml");
/// Its configuration, among its data.
const CONFIG: &str = "zoo.cfg";
/// What names of hosts stand for, beside it.
const HOSTS: &str = "hosts";

/// A server with its data on disk, the only one of its ensemble or one of several.
#[derive(Debug)]
pub struct ZooKeeper {
    program: PathBuf,
    more: Vec<String>,
    one_of: Option<Member>,
}

/// One server of several.
#[derive(Debug)]
pub(super) struct Member {
    /// Its number among them.
    pub(super) number: usize,
    /// All of them.
    pub(super) peers: Arc<[Peer]>,
    /// What it takes their names for, as a file of hosts has it, where they are names.
    pub(super) hosts: Option<String>,
}

/// How the others call a server of an ensemble.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) host: String,
    pub(super) quorum: u16,
    pub(super) election: Port,
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
        let more = more.iter().map(ToString::to_string).collect();
        Server::new(Self::with(more)?)
    }

    /// One that is alone, with more lines of its configuration.
    pub(super) fn with(more: Vec<String>) -> io::Result<Self> {
        Ok(Self { program: program()?, more, one_of: None })
    }

    /// Several that know each other, running: each answers once a quorum does.
    ///
    /// # Errors
    /// As [`server`](Self::server), or they do not start.
    pub async fn ensemble<const N: usize>() -> io::Result<[Server<Self>; N]> {
        let (mut ports, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..N {
            let (port, second) = (Port::reserve()?, Port::reserve()?);
            let host = "127.0.0.1".to_owned();
            peers.push(Peer { host, quorum: second.number(), election: Port::reserve()? });
            ports.push((port, second));
        }
        let peers: Arc<[Peer]> = peers.into();
        let mut servers = Vec::new();
        for (n, (port, second)) in ports.into_iter().enumerate() {
            let member = Member { number: n, peers: Arc::clone(&peers), hosts: None };
            let mut server = Server::on(Self::member(member)?, port, second)?;
            server.launch()?;
            servers.push(server);
        }
        for server in &mut servers {
            server.ready().await?;
        }
        servers.try_into().map_err(|_| io::Error::other("not as many servers as asked for"))
    }

    pub(super) fn member(member: Member) -> io::Result<Self> {
        Ok(Self { program: program()?, more: Vec::new(), one_of: Some(member) })
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
            "4lw.commands.whitelist=srvr".to_owned(),
            // The machine does not crash here, only the process: what it wrote is there when it comes back.
            "forceSync=no".to_owned(),
        ];
        if let Some(Member { number, peers, hosts }) = &self.one_of {
            // Ticks: to find each other, and to go without a word.
            lines.extend(["initLimit=20".to_owned(), "syncLimit=4".to_owned()]);
            // Milliseconds. On a busy machine a server that has won listens later than the other dials it, which by
            // default gives up after half a second, and then is not followed again until the winner has waited for all of
            // the first limit.
            lines.push("leaderConnectDelayDuringRetryMs=300".to_owned());
            lines.push("leader.maxTimeToWaitForEpoch=2000".to_owned());
            for (n, peer) in peers.iter().enumerate() {
                let Peer { host, quorum, election } = peer;
                lines.push(format!("server.{}={host}:{quorum}:{}", n + 1, election.number()));
            }
            if let Some(hosts) = hosts {
                std::fs::write(data.join(HOSTS), hosts)?;
            }
            std::fs::write(data.join("myid"), (number + 1).to_string())?;
        }
        lines.extend(self.more.iter().cloned());
        std::fs::write(data.join(CONFIG), lines.join("\n"))
    }

    fn command(&self, _port: u16, _second: u16, data: &Path) -> (PathBuf, Vec<OsString>) {
        let start = ["start-foreground".into(), data.join(CONFIG).into()];
        if self.one_of.as_ref().is_none_or(|member| member.hosts.is_none()) {
            return (self.program.clone(), start.into());
        }
        // The program passes nothing on to Java, which reads this itself.
        let options = format!("JDK_JAVA_OPTIONS=-Djdk.net.hosts.file={}", data.join(HOSTS).display());
        let mut arguments = vec![options.into(), self.program.clone().into()];
        arguments.extend(start);
        ("env".into(), arguments)
    }

    fn image(&self) -> Image {
        let image = testbed::image("CALLSIGN_ZOOKEEPER_IMAGE", || format!("zookeeper:{}", version()));
        // All of a folder of certificates, as files in it are replaced by others of the same name.
        let files = self.more.iter().filter_map(|line| line.split_once("Store.location="));
        files.filter_map(|(_, file)| Path::new(file).parent()).fold(image, Image::reading)
    }

    async fn answers(&self, addr: SocketAddr) -> bool {
        Raw::new(addr).is_ready().await
    }
}

fn program() -> io::Result<PathBuf> {
    match Provider::chosen()? {
        Provider::Native => testbed::find("zookeeper", "CALLSIGN_ZOOKEEPER_BIN"),
        Provider::Containers(_) => Ok("zkServer.sh".into()),
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
