//! [`PartitionedDatacenter`]: three servers, one of which can be cut off from the others and not from the agents of
//! their clients.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::server::{Consul, Datacenter, Role};
use crate::leaders;
use crate::ports::Port;
use crate::proxy::{Diallers, Proxy};
use crate::server::Server;

const SERVERS: usize = 3;
const CLIENTS: usize = 2;

/// Three servers that are reached through doors, and two agents of clients. Everybody dials from an address of the own,
/// so that a door knows who comes: all of 127.0.0.0/8 is this machine on Linux.
///
/// Gossip does not pass the doors. Whom others cannot hear of it tells the agents of clients, who reach everybody, so
/// that nobody takes a server for dead in such a partition: that is why agents do not leave it by themselves.
#[derive(Debug)]
pub struct PartitionedDatacenter {
    /// The agents. The doors let all of them through at first.
    pub agents: Datacenter,
    doors: Vec<Proxy>,
}

impl PartitionedDatacenter {
    /// Starts it, whole; `more` is more of the configuration of each agent, in Consul's language.
    ///
    /// # Errors
    /// There is no Consul, it cannot be started, or this system has no such addresses.
    pub async fn start(more: &str) -> io::Result<Self> {
        let mut gossip = Vec::new();
        for _ in 0..SERVERS + CLIENTS {
            gossip.push(Port::reserve()?);
        }
        let joins: Vec<SocketAddr> = (0..SERVERS).map(|n| (door(n), gossip[n].number()).into()).collect();
        let (mut agents, mut doors) = (Vec::new(), Vec::new());
        for (n, gossip) in gossip.into_iter().enumerate() {
            let kind = if n < SERVERS {
                let role = Role::Server { of: SERVERS, others: joins.clone() };
                Consul::behind(&format!("s{n}"), role, gossip, host(n), door(n))?
            } else {
                let role = Role::Client { servers: joins.clone() };
                Consul::behind(&format!("c{n}"), role, gossip, host(n), host(n))?
            };
            let mut agent = Server::new(kind.with(more))?;
            if n < SERVERS {
                let at = |host: Ipv4Addr| SocketAddr::from((host, agent.second().number()));
                doors.push(Proxy::at(at(door(n)), at(host(n)), diallers()).await?);
            }
            agent.launch()?;
            agents.push(agent);
        }
        for agent in &mut agents {
            agent.ready().await?;
        }
        let clients = agents.split_off(SERVERS);
        Ok(Self { agents: Datacenter { servers: agents, clients }, doors })
    }

    /// Makes a server the leader.
    ///
    /// # Errors
    /// It is not within 15 s, or a server does not answer.
    pub async fn lead(&self, server: usize) -> io::Result<()> {
        if self.leader(server).await? != Some(server) {
            let by = Consul::raw(&self.agents.servers[server]);
            let all = by.get("operator/raft/configuration").await?;
            let name = format!("s{server}");
            let found = all["Servers"].as_array().into_iter().flatten().find(|one| one["Node"] == *name);
            let id = found.and_then(|one| one["ID"].as_str()).unwrap_or_default();
            by.post(&format!("operator/raft/transfer-leader?id={id}")).await?;
        }
        leaders::until(
            SERVERS,
            |n| self.leader(n),
            |leaders| leaders.iter().all(|leader| *leader == Some(server)),
        )
        .await
    }

    /// How many connections an agent of clients has to each server: one for what it asks, and one for what it follows,
    /// if it does.
    #[must_use]
    pub fn connections(&self, client: usize) -> Vec<usize> {
        self.doors.iter().map(|door| door.open_of(SERVERS + client)).collect()
    }

    /// Nothing passes any more between a server and the others, in either direction, and nobody is told.
    pub fn isolate(&self, server: usize) {
        for (n, door) in self.doors.iter().enumerate() {
            if n == server {
                (0..SERVERS).filter(|other| *other != server).for_each(|other| door.silence(other));
            } else {
                door.silence(server);
            }
        }
    }

    /// Lets everybody reach everybody again.
    pub fn heal(&self) {
        self.doors.iter().for_each(Proxy::heal);
    }

    /// Whom a server takes for the leader; `None` if it knows of none.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn leader(&self, server: usize) -> io::Result<Option<usize>> {
        self.agents.leader(&Consul::raw(&self.agents.servers[server])).await
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

/// Where an agent listens and dials from.
fn host(agent: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 2, 0, u8::try_from(agent + 1).unwrap())
}

/// Where the others reach a server.
fn door(server: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, 0, u8::try_from(server + 1).unwrap())
}

fn diallers() -> Diallers {
    Arc::new(|from: SocketAddr, _| (0..SERVERS + CLIENTS).find(|n| from.ip() == IpAddr::from(host(*n))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever it is, the leader or not.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_isolated_knows_no_leader_and_cannot_write() {
        let datacenter = PartitionedDatacenter::start("").await.unwrap();
        datacenter.whole().await.unwrap();
        let leader = datacenter.leader(0).await.unwrap().unwrap();
        for server in [(leader + 1) % SERVERS, leader] {
            datacenter.isolate(server);
            datacenter.in_minority(server).await.unwrap();
            let by = |n: usize| Consul::raw(&datacenter.agents.servers[n % SERVERS]);
            by(server + 1).write("n", "book", "10.0.0.1", 1).await.unwrap();
            assert_eq!(by(server + 2).alive("book").await.unwrap().len(), 1);
            assert!(
                by(server).get("health/service/book?stale").await.unwrap().as_array().unwrap().is_empty()
            );
            let refused = by(server).alive("book").await.unwrap_err();
            println!("measured: the isolated server says {refused}");
            by(server + 1).delete("n").await.unwrap();
            datacenter.heal();
            datacenter.whole().await.unwrap();
            assert!(by(server).alive("book").await.unwrap().is_empty());
        }
    }
}
