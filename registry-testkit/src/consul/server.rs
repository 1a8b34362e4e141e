//! [`Consul`]: how a Consul agent is run.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::Api;
use crate::ports::Port;
use crate::server::{Kind, Server};
use crate::testbed;

/// An agent that is the only server of its datacenter, with its data on disk.
#[derive(Debug)]
pub struct Consul {
    program: PathBuf,
    gossip: Port,
    more: Vec<OsString>,
}

impl Consul {
    /// The Consul of the testbed, or that which `CALLSIGN_CONSUL_BIN` names, as a server that is not running yet.
    ///
    /// # Errors
    /// There is no Consul (the error says how to get it), or no free port.
    pub fn server() -> io::Result<Server<Self>> {
        Self::server_with(&[])
    }

    /// The same with more of its configuration, in its language.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn server_with(more: &[&str]) -> io::Result<Server<Self>> {
        let program = testbed::find("consul", "CALLSIGN_CONSUL_BIN")?;
        let more = more.iter().flat_map(|hcl| ["-hcl".into(), OsString::from(hcl)]).collect();
        Server::new(Self { program, gossip: Port::reserve()?, more })
    }
}

#[async_trait]
impl Kind for Consul {
    fn name(&self) -> &'static str {
        "Consul"
    }

    fn command(&self, port: u16, second: u16, data: &Path) -> (PathBuf, Vec<OsString>) {
        let gossip = self.gossip.number();
        let hcl = format!(
            "ports {{ http = {port} server = {second} serf_lan = {gossip} serf_wan = -1 dns = -1 grpc = -1 grpc_tls = -1 }} \
             performance {{ raft_multiplier = 1 }} \
             limits {{ http_max_conns_per_client = 2000 }} \
             disable_update_check = true node_name = \"n1\" leave_on_terminate = false"
        );
        let mut arguments: Vec<OsString> =
            ["agent", "-server", "-bootstrap-expect=1", "-bind=127.0.0.1", "-client=127.0.0.1"]
                .map(Into::into)
                .into();
        arguments.extend([
            "-log-level=warn".into(),
            "-hcl".into(),
            hcl.into(),
            "-data-dir".into(),
            data.into(),
        ]);
        arguments.extend(self.more.iter().cloned());
        (self.program.clone(), arguments)
    }

    async fn answers(&self, addr: SocketAddr) -> bool {
        Api::new(addr).is_ready().await
    }
}
