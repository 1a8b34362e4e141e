//! [`Consul`]: how a Consul agent is run.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::Api;
use crate::container::Image;
use crate::pki::{Identity, Pki};
use crate::ports::Port;
use crate::provider::Provider;
use crate::server::{Kind, Server};
use crate::testbed;

const GO_MOD: &str = include_str!("../../testbed/consul/go.mod");

/// An agent that is the only server of its datacenter, with its data on disk.
#[derive(Debug)]
pub struct Consul {
    program: PathBuf,
    name: String,
    role: Role,
    gossip: Port,
    /// Where it listens, and where it dials from.
    host: Ipv4Addr,
    /// Where the others reach it; gossip comes straight, all else by whoever listens there on its second port.
    shown: Ipv4Addr,
    /// TLS with certificates of clients, on the port itself; a second one in the clear for raw access.
    tls: Option<(PathBuf, Identity, Port)>,
    /// The token that may do everything, where there are access rules.
    token: Option<&'static str>,
    more: Vec<OsString>,
}

/// What an agent is to the others of its datacenter.
#[derive(Debug)]
pub(super) enum Role {
    /// A server by itself that keeps nothing on disk, as for development.
    Dev,
    /// One of so many servers, which find each other by gossip at these addresses.
    Server { of: usize, others: Vec<SocketAddr> },
    /// A client agent, as there is one for each machine.
    Client { servers: Vec<SocketAddr> },
}

/// The socket among an agent's data.
const SOCKET: &str = "http.sock";

/// The token that may do everything in a Consul with access rules.
pub const MANAGEMENT: &str = "00000000-0000-4000-8000-00000000c0de";

impl Consul {
    /// The Consul of the testbed, or that which `CALLSIGN_CONSUL_BIN` names, or in containers `CALLSIGN_CONSUL_IMAGE`,
    /// as a server that is not running yet.
    ///
    /// # Errors
    /// There is no Consul (the error says how to get it), or no free port.
    pub fn server() -> io::Result<Server<Self>> {
        Self::server_with(&[])
    }

    /// The same in Consul's mode for development, which keeps nothing on disk: each start is a first start.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn dev() -> io::Result<Server<Self>> {
        Server::new(Self::agent("n1", Role::Dev, Port::reserve()?)?)
    }

    /// The same with more of its configuration, in its language.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn server_with(more: &[&str]) -> io::Result<Server<Self>> {
        Server::new(more.iter().fold(Self::alone()?, |kind, hcl| kind.with(hcl)))
    }

    /// One that denies everything to who has no token.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn with_rules() -> io::Result<Server<Self>> {
        Server::new(Self::alone()?.ruled())
    }

    /// One that speaks TLS and wants to see certificates of clients, all signed by `pki`, its own the one called
    /// `server`.
    ///
    /// # Errors
    /// As [`server`](Self::server), or the certificate cannot be written.
    pub fn secured(pki: &Pki) -> io::Result<Server<Self>> {
        Server::new(Self::alone()?.speaking_tls(pki)?)
    }

    /// Both.
    ///
    /// # Errors
    /// As [`secured`](Self::secured).
    pub fn secured_with_rules(pki: &Pki) -> io::Result<Server<Self>> {
        Server::new(Self::alone()?.speaking_tls(pki)?.ruled())
    }

    fn ruled(self) -> Self {
        let rules = format!(
            "acl {{ enabled = true default_policy = \"deny\" enable_token_persistence = true \
             tokens {{ initial_management = \"{MANAGEMENT}\" agent = \"{MANAGEMENT}\" }} }}"
        );
        Self { token: Some(MANAGEMENT), ..self }.with(&rules)
    }

    fn speaking_tls(self, pki: &Pki) -> io::Result<Self> {
        let identity = pki.issue("server", &["127.0.0.1", "localhost"])?;
        Ok(Self { tls: Some((pki.ca(), identity, Port::reserve()?)), ..self })
    }

    fn alone() -> io::Result<Self> {
        Self::agent("n1", Role::Server { of: 1, others: Vec::new() }, Port::reserve()?)
    }

    fn agent(name: &str, role: Role, gossip: Port) -> io::Result<Self> {
        let program = Provider::chosen()?.program("consul", "CALLSIGN_CONSUL_BIN")?;
        let (host, shown) = (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
        let (name, more) = (name.to_owned(), Vec::new());
        Ok(Self { program, name, role, gossip, host, shown, tls: None, token: None, more })
    }

    /// The same with more of its configuration, in its language; nothing if empty.
    pub(super) fn with(mut self, hcl: &str) -> Self {
        if !hcl.is_empty() {
            self.more.extend(["-hcl".into(), hcl.into()]);
        }
        self
    }

    /// One that listens at `host` and whom others reach at `shown`.
    pub(super) fn behind(
        name: &str,
        role: Role,
        gossip: Port,
        host: Ipv4Addr,
        shown: Ipv4Addr,
    ) -> io::Result<Self> {
        Ok(Self { host, shown, ..Self::agent(name, role, gossip)? })
    }

    /// Where the others reach it, by what they take it for.
    pub(super) fn shown(&self) -> Ipv4Addr {
        self.shown
    }

    /// Three servers and two client agents, running, and each knowing all others.
    ///
    /// # Errors
    /// As [`server`](Self::server), or they do not start.
    pub async fn datacenter() -> io::Result<Datacenter> {
        let mut gossip = Vec::new();
        for _ in 0..3 {
            gossip.push(Port::reserve()?);
        }
        let addrs: Vec<_> = gossip.iter().map(Port::addr).collect();
        let mut agents = Vec::new();
        for (n, port) in gossip.into_iter().enumerate() {
            let role = Role::Server { of: 3, others: addrs.clone() };
            agents.push(Server::new(Self::agent(&format!("s{n}"), role, port)?)?);
        }
        for name in ["a", "b"] {
            let role = Role::Client { servers: addrs.clone() };
            agents.push(Server::new(Self::agent(name, role, Port::reserve()?)?)?);
        }
        for agent in &mut agents {
            agent.launch()?;
        }
        for agent in &mut agents {
            agent.ready().await?;
        }
        let clients = agents.split_off(3);
        Ok(Datacenter { servers: agents, clients })
    }

    /// Raw access to an agent of this kind, with all rights.
    #[must_use]
    pub fn raw(server: &Server<Self>) -> Api {
        server.kind().api(server.addr())
    }

    /// The socket in the file system at which an agent of this kind listens too.
    #[must_use]
    pub fn socket(server: &Server<Self>) -> PathBuf {
        server.data().join(SOCKET)
    }

    fn api(&self, addr: SocketAddr) -> Api {
        let api = Api::new(self.tls.as_ref().map_or(addr, |(_, _, plain)| plain.addr()));
        self.token.map_or(api.clone(), |token| api.with_token(token))
    }
}

/// Agents of one datacenter.
#[derive(Debug)]
pub struct Datacenter {
    /// Three servers, one of which leads.
    pub servers: Vec<Server<Consul>>,
    /// Two client agents, as on two machines.
    pub clients: Vec<Server<Consul>>,
}

impl Datacenter {
    /// Whether the others could lose any one server. One that was killed and is back has no vote for a while, of which
    /// Consul's own word about its health may know nothing yet.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn is_sound(&self, by: &Api) -> io::Result<bool> {
        let (health, raft) =
            (by.get("operator/autopilot/health").await?, by.get("operator/raft/configuration").await?);
        let voters = raft["Servers"].as_array().into_iter().flatten().filter(|one| one["Voter"] == true);
        Ok(health["Healthy"] == true
            && health["FailureTolerance"] == 1
            && voters.count() == self.servers.len())
    }

    /// Which server leads, as another agent sees it; `None` if it knows of none.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn leader(&self, by: &Api) -> io::Result<Option<usize>> {
        let leader = by.get("status/leader").await?;
        let leader = leader.as_str().unwrap_or_default();
        if leader.is_empty() {
            return Ok(None);
        }
        let is_leader = |server: &Server<Consul>| {
            leader == format!("{}:{}", server.kind().shown(), server.second().number())
        };
        let found = self.servers.iter().position(is_leader);
        found
            .map(Some)
            .ok_or_else(|| io::Error::other(format!("no server has the address {leader} of the leader")))
    }
}

#[async_trait]
impl Kind for Consul {
    fn name(&self) -> &'static str {
        "Consul"
    }

    fn command(&self, port: u16, second: u16, data: &Path) -> (PathBuf, Vec<OsString>) {
        let gossip = self.gossip.number();
        let (http, https, tls) = match &self.tls {
            None => (port, -1, String::new()),
            Some((ca, identity, plain)) => {
                let tls = format!(
                    "tls {{ https {{ ca_file = {ca:?} cert_file = {:?} key_file = {:?} verify_incoming = true }} }}",
                    identity.cert, identity.key
                );
                (plain.number(), i32::from(port), tls)
            }
        };
        let none = Vec::new();
        let (role, joins) = match &self.role {
            Role::Dev => (String::new(), &none),
            Role::Server { of, others } => (format!("server = true bootstrap_expect = {of}"), others),
            Role::Client { servers } => ("server = false".to_owned(), servers),
        };
        let socket = data.join(SOCKET);
        let joins: Vec<_> = joins.iter().map(|addr| format!("\"{addr}\"")).collect();
        let (name, joins, shown) = (&self.name, joins.join(", "), self.shown);
        let hcl = format!(
            "{role} advertise_addr = \"{shown}\" serf_lan = \"{shown}\" retry_join = [{joins}] retry_interval = \"1s\" ports {{ http = {http} https = {https} server = {second} serf_lan = {gossip} serf_wan = -1 dns = -1 grpc = -1 grpc_tls = -1 }} \
             performance {{ raft_multiplier = 1 }} \
             addresses {{ http = \"127.0.0.1 unix://{}\" }} \
             disable_update_check = true node_name = \"{name}\" leave_on_terminate = false {tls}",
            socket.display()
        );
        let bind = format!("-bind={}", self.host);
        let mut arguments: Vec<OsString> = ["agent", &bind, "-client=127.0.0.1"].map(Into::into).into();
        arguments.extend(["-log-level=warn".into(), "-hcl".into(), hcl.into()]);
        match self.role {
            Role::Dev => arguments.push("-dev".into()),
            _ => arguments.extend(["-data-dir".into(), data.into()]),
        }
        arguments.extend(self.more.iter().cloned());
        (self.program.clone(), arguments)
    }

    fn image(&self) -> Image {
        let version = testbed::version(GO_MOD, "github.com/hashicorp/consul");
        let image = testbed::image("CALLSIGN_CONSUL_IMAGE", || format!("hashicorp/consul:{version}"));
        let folders = self.tls.iter().filter_map(|(ca, _, _)| ca.parent());
        folders.fold(image, Image::reading)
    }

    async fn answers(&self, addr: SocketAddr) -> bool {
        self.api(addr).is_ready().await
    }
}
