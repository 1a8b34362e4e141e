//! [`Etcd`]: how an etcd is run.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::Gateway;
use crate::ports::Port;
use crate::server::{Kind, Server};
use crate::testbed;

/// One member of an etcd, the only one or one of several.
#[derive(Debug)]
pub struct Etcd {
    program: PathBuf,
    name: String,
    /// All members, as `name=URL,...`; `None` where it is the only one.
    cluster: Option<String>,
    more: Vec<OsString>,
}

impl Etcd {
    /// The etcd of the testbed, or that which `CALLSIGN_ETCD_BIN` names, as a server that is not running yet.
    ///
    /// # Errors
    /// There is no etcd (the error says how to get it), or no free port.
    pub fn server() -> io::Result<Server<Self>> {
        Self::server_with(&[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn server_with(more: &[&str]) -> io::Result<Server<Self>> {
        Server::new(Self::member("m0".to_owned(), None, more)?)
    }

    /// Several that know each other, running: each answers once a quorum does.
    ///
    /// # Errors
    /// As [`server`](Self::server), or they do not start.
    pub async fn cluster<const N: usize>() -> io::Result<[Server<Self>; N]> {
        let mut ports = Vec::new();
        for _ in 0..N {
            ports.push((Port::reserve()?, Port::reserve()?));
        }
        let members: Vec<_> = ports
            .iter()
            .enumerate()
            .map(|(n, (_, second))| format!("m{n}=http://{}", second.addr()))
            .collect();
        let mut servers = Vec::new();
        for (n, (port, second)) in ports.into_iter().enumerate() {
            let member = Self::member(format!("m{n}"), Some(members.join(",")), &[])?;
            let mut server = Server::on(member, port, second)?;
            server.launch()?;
            servers.push(server);
        }
        for server in &mut servers {
            server.ready().await?;
        }
        servers.try_into().map_err(|_| io::Error::other("not as many servers as asked for"))
    }

    fn member(name: String, cluster: Option<String>, more: &[&str]) -> io::Result<Self> {
        let program = testbed::find("etcd", "CALLSIGN_ETCD_BIN")?;
        Ok(Self { program, name, cluster, more: more.iter().map(OsString::from).collect() })
    }
}

#[async_trait]
impl Kind for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn command(&self, port: u16, second: u16, data: &Path) -> (PathBuf, Vec<OsString>) {
        let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{second}"));
        let alone = format!("{}={peer}", self.name);
        let pairs = [
            ("--name", self.name.as_str()),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", self.cluster.as_ref().unwrap_or(&alone)),
            ("--log-level", "error"),
            // For the test of a value above the usual 1.5 MiB.
            ("--max-request-bytes", "4194304"),
        ];
        let mut arguments: Vec<OsString> =
            pairs.iter().flat_map(|(key, value)| [key.into(), value.into()]).collect();
        // The machine does not crash here, only the process: what it wrote is there when it comes back.
        arguments.extend(["--unsafe-no-fsync".into(), "--data-dir".into(), data.into()]);
        arguments.extend(self.more.iter().cloned());
        (self.program.clone(), arguments)
    }

    async fn answers(&self, addr: SocketAddr) -> bool {
        Gateway::new(addr).healthy().await
    }
}
