//! [`PartitionedCluster`]: three members, one of which can be cut off from the others and not from its clients.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::gateway::Gateway;
use super::member::Etcd;
use crate::leaders;
use crate::ports::Port;
use crate::proxy::{Diallers, Proxy};
use crate::server::Server;
use crate::sockets::owner;

const MEMBERS: usize = 3;

/// The members' processes, once they run.
type Processes = Arc<Mutex<Vec<u32>>>;

/// Three members that reach each other through links. Both ends of such a link dial, so that cutting off a member takes
/// its own link and its share of those of the others: whose a connection is, the system tells by its process.
#[derive(Debug)]
pub struct PartitionedCluster {
    members: Vec<Server<Etcd>>,
    peers: Vec<Proxy>,
    /// The links that clients reach the members through, in their order. No cut among members touches them.
    pub links: Vec<Proxy>,
}

impl PartitionedCluster {
    /// Starts it, whole.
    ///
    /// # Errors
    /// There is no etcd, it cannot be started, or this system does not tell whose a connection is.
    pub async fn start() -> io::Result<Self> {
        let processes = Processes::default();
        // What it says of nobody does not matter, only that it can be asked.
        let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
        owner(nobody, nobody, &[])?;
        let mut ports = Vec::new();
        let (mut peers, mut links) = (Vec::new(), Vec::new());
        for _ in 0..MEMBERS {
            let (port, second) = (Port::reserve()?, Port::reserve()?);
            let upstream = second.addr();
            peers.push(Proxy::for_diallers(upstream, diallers(Arc::clone(&processes))).await?);
            links.push(Proxy::start(port.addr()).await?);
            ports.push((port, second));
        }
        let all: Vec<_> =
            peers.iter().enumerate().map(|(n, peer)| format!("m{n}=http://{}", peer.addr())).collect();
        let mut members = Vec::new();
        {
            // Held, so that nobody who dials is looked up before it is known.
            let mut processes = processes.lock().unwrap_or_else(PoisonError::into_inner);
            for ((n, (port, second)), peer) in ports.into_iter().enumerate().zip(&peers) {
                let member = Etcd::behind(format!("m{n}"), all.join(","), peer.addr())?;
                let mut server = Server::on(member, port, second)?;
                server.launch()?;
                processes.push(server.id()?);
                members.push(server);
            }
        }
        for member in &mut members {
            member.ready().await?;
        }
        Ok(Self { members, peers, links })
    }

    /// The URL of a registry in it, through the links, with more of a query.
    #[must_use]
    pub fn url(&self, query: &str) -> String {
        let hosts: Vec<_> = self.links.iter().map(|link| link.addr().to_string()).collect();
        format!("etcd://{}/services?{query}", hosts.join(","))
    }

    /// Raw access by a member.
    #[must_use]
    pub fn raw(&self, member: usize) -> Gateway {
        Etcd::raw(&self.members[member])
    }

    /// Nothing passes any more between a member and the others, in either direction, and nobody is told.
    pub fn isolate(&self, member: usize) {
        for (n, peer) in self.peers.iter().enumerate() {
            if n == member {
                peer.blackhole();
            } else {
                peer.silence(member);
            }
        }
    }

    /// Lets the members reach each other again.
    pub fn heal(&self) {
        self.peers.iter().for_each(Proxy::heal);
    }

    /// Whom a member takes for the leader; `None` if it knows of none.
    ///
    /// # Errors
    /// A member does not answer.
    pub async fn leader(&self, member: usize) -> io::Result<Option<usize>> {
        let Some(leader) = self.raw(member).leader().await?.1 else { return Ok(None) };
        for n in 0..MEMBERS {
            if self.raw(n).leader().await?.0 == leader {
                return Ok(Some(n));
            }
        }
        Err(io::Error::other(format!("member {member} follows a stranger, {leader}")))
    }

    /// Waits until a member is in the minority: it knows of no leader, and the others agree on one of them.
    ///
    /// # Errors
    /// It is not within 15 s, or a member does not answer.
    pub async fn in_minority(&self, member: usize) -> io::Result<()> {
        let follows = |n| self.leader(n);
        leaders::until(MEMBERS, follows, |leaders| leaders::in_minority(leaders, member)).await
    }

    /// Waits until all agree on a leader.
    ///
    /// # Errors
    /// As [`in_minority`](Self::in_minority).
    pub async fn whole(&self) -> io::Result<()> {
        leaders::until(MEMBERS, |n| self.leader(n), leaders::whole).await
    }
}

fn diallers(processes: Processes) -> Diallers {
    Arc::new(move |from: SocketAddr, to: SocketAddr| {
        let processes = processes.lock().unwrap_or_else(PoisonError::into_inner);
        owner(from, to, &processes).ok().flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever it is, the leader or not.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_isolated_knows_no_leader_and_cannot_read() {
        let cluster = PartitionedCluster::start().await.unwrap();
        cluster.whole().await.unwrap();
        let leader = cluster.leader(0).await.unwrap().unwrap();
        for member in [(leader + 1) % MEMBERS, leader] {
            cluster.isolate(member);
            cluster.in_minority(member).await.unwrap();
            let other = cluster.raw((member + 1) % MEMBERS);
            other.put("services/key", b"value", 0).await.unwrap();
            assert_eq!(other.count("services/").await.unwrap(), 1);
            let refused = cluster.raw(member).count("services/").await.unwrap_err();
            println!("measured: the isolated member says {refused}");
            other.delete("services/key").await.unwrap();
            cluster.heal();
            cluster.whole().await.unwrap();
            assert_eq!(cluster.raw(member).count("services/").await.unwrap(), 0);
        }
    }
}
