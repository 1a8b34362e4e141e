//! [`PartitionedEnsemble`]: three servers, one of which can be cut off from the others and not from its clients.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::raw::{Raw, Role};
use super::server::{Member, Peer, ZooKeeper};
use crate::leaders;
use crate::ports::Port;
use crate::proxy::Proxy;
use crate::server::Server;

const SERVERS: usize = 3;

/// Three servers that reach each other through doors, one for each two of them and each direction.
///
/// Servers tell each other where they are, so no server may be configured with an address of its own that others can
/// use: it would be used past the doors. So they know each other by names, which each takes for something else: its own
/// for where it listens, that of another for the door to it. All of 127.0.0.0/8 is this machine on Linux.
#[derive(Debug)]
pub struct PartitionedEnsemble {
    servers: Vec<Server<ZooKeeper>>,
    doors: Vec<Door>,
    /// The links that clients reach the servers through, in their order. No cut among servers touches them.
    pub links: Vec<Proxy>,
}

/// What one server reaches another through.
#[derive(Debug)]
struct Door {
    between: [usize; 2],
    proxy: Proxy,
}

impl PartitionedEnsemble {
    /// Starts it, whole.
    ///
    /// # Errors
    /// There is no ZooKeeper, it cannot be started, or this system has no such addresses.
    pub async fn start() -> io::Result<Self> {
        let (mut ports, mut peers, mut links) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..SERVERS {
            let (port, second) = (Port::reserve()?, Port::reserve()?);
            peers.push(Peer { host: name(n), quorum: second.number(), election: Port::reserve()? });
            links.push(Proxy::start(port.addr()).await?);
            ports.push((port, second));
        }
        let mut doors = Vec::new();
        for from in 0..SERVERS {
            for to in (0..SERVERS).filter(|to| *to != from) {
                for port in [peers[to].quorum, peers[to].election.number()] {
                    let at = |host: Ipv4Addr| SocketAddr::from((host, port));
                    let proxy =
                        Proxy::at(at(seen(to, from)), at(seen(to, to)), Arc::new(|_, _| None)).await?;
                    // A server that has lost an election may come before the winner listens.
                    proxy.patient();
                    doors.push(Door { between: [from, to], proxy });
                }
            }
        }
        let peers: Arc<[Peer]> = peers.into();
        let mut servers = Vec::new();
        for (number, (port, second)) in ports.into_iter().enumerate() {
            let mut hosts = String::new();
            for other in 0..SERVERS {
                writeln!(hosts, "{} {}", seen(other, number), name(other)).map_err(io::Error::other)?;
            }
            let member = Member { number, peers: Arc::clone(&peers), hosts: Some(hosts) };
            let mut server = Server::on(ZooKeeper::member(member)?, port, second)?;
            server.launch()?;
            servers.push(server);
        }
        for server in &mut servers {
            server.ready().await?;
        }
        Ok(Self { servers, doors, links })
    }

    /// The URL of a registry in it, through the links, with more of a query.
    #[must_use]
    pub fn url(&self, query: &str) -> String {
        let hosts: Vec<_> = self.links.iter().map(|link| link.addr().to_string()).collect();
        format!("zk://{}/services?{query}", hosts.join(","))
    }

    /// Raw access to a server, past the links.
    #[must_use]
    pub fn raw(&self, server: usize) -> Raw {
        ZooKeeper::raw(&self.servers[server])
    }

    /// Leaves one server only within reach of clients.
    pub fn reach_only(&self, server: usize) {
        for (n, link) in self.links.iter().enumerate() {
            if n == server { link.heal() } else { link.cut() }
        }
    }

    /// Nothing passes any more between a server and the others, in either direction, and nobody is told.
    pub fn isolate(&self, server: usize) {
        let of = self.doors.iter().filter(|door| door.between.contains(&server));
        of.for_each(|door| door.proxy.blackhole());
    }

    /// Lets the servers reach each other again.
    pub fn heal(&self) {
        self.doors.iter().for_each(|door| door.proxy.heal());
    }

    /// Whom a server takes for the leader; `None` if it is part of no quorum, or if of several each takes itself for it.
    ///
    /// # Errors
    /// A server does not answer.
    pub async fn leader(&self, server: usize) -> io::Result<Option<usize>> {
        match self.raw(server).role().await? {
            None => return Ok(None),
            Some(Role::Leads) => return Ok(Some(server)),
            Some(Role::Follows) => {}
        }
        let mut leaders = Vec::new();
        for n in 0..SERVERS {
            if self.raw(n).role().await? == Some(Role::Leads) {
                leaders.push(n);
            }
        }
        Ok(<[usize; 1]>::try_from(leaders).ok().map(|[leader]| leader))
    }

    /// Waits until a server is in the minority: it knows of no leader, and the others agree on one of them.
    ///
    /// # Errors
    /// It is not within 15 s, or a server does not answer.
    pub async fn in_minority(&self, server: usize) -> io::Result<()> {
        let follows = |n| self.leader(n);
        leaders::until(SERVERS, follows, |leaders| leaders::in_minority(leaders, server)).await
    }

    /// Waits until all agree on a leader.
    ///
    /// # Errors
    /// As [`in_minority`](Self::in_minority).
    pub async fn whole(&self) -> io::Result<()> {
        leaders::until(SERVERS, |n| self.leader(n), leaders::whole).await
    }
}

/// How everybody calls a server.
fn name(server: usize) -> String {
    format!("zk{}", server + 1)
}

/// Where a server finds another, or listens itself.
fn seen(server: usize, by: usize) -> Ipv4Addr {
    let octet = |n: usize| u8::try_from(n + 1).unwrap();
    Ipv4Addr::new(127, 3, octet(by), octet(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever it is, the leader or not.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_isolated_is_part_of_no_quorum_and_grants_no_session() {
        let ensemble = PartitionedEnsemble::start().await.unwrap();
        ensemble.whole().await.unwrap();
        let leader = ensemble.leader(0).await.unwrap().unwrap();
        for server in [(leader + 1) % SERVERS, leader] {
            ensemble.isolate(server);
            let begun = std::time::Instant::now();
            ensemble.in_minority(server).await.unwrap();
            println!("measured: in the minority after {:?}", begun.elapsed());
            let other = ensemble.raw((server + 1) % SERVERS);
            other.put("/services/key", b"value").await.unwrap();
            assert!(other.get("/services/key").await.unwrap().is_some());
            let refused = ensemble.raw(server).get("/services/key").await.unwrap_err();
            println!("measured: the isolated server says {refused}");
            assert!(other.delete("/services/key").await.unwrap());
            ensemble.heal();
            ensemble.whole().await.unwrap();
            println!("measured: whole after {:?}", begun.elapsed());
            assert!(ensemble.raw(server).get("/services/key").await.unwrap().is_none());
        }
    }
}
