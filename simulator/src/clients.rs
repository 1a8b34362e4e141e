//! [`Contender`]: by which policy clients pick, with or without ejection; [`clients`]: their balancers.

use std::sync::Arc;

use callsign_core::{Instance, Registry, RegistryUrl, ServiceName, fixed};
use callsign_lb::{Balancer, Ejection, Endpointer, NamedPolicy};

use crate::Error;
use crate::clock::tick;

/// How all clients of a simulation balance.
#[derive(Debug, Clone)]
pub struct Contender {
    policy: NamedPolicy,
    ejection: Option<Ejection>,
}

impl Contender {
    /// By a policy, which calls whoever is listed.
    #[must_use]
    pub fn new(policy: NamedPolicy) -> Self {
        Self { policy, ejection: None }
    }

    /// The same, but servers that fail are left out for a while.
    #[must_use]
    pub fn with_ejection(mut self, rule: Ejection) -> Self {
        self.ejection = Some(rule);
        self
    }
}

pub(crate) type Client = Balancer<usize, NamedPolicy>;

/// Servers are told apart by their ports, from 1.
fn registry(servers: usize) -> Result<Registry, Error> {
    let listed: Vec<_> = (1..=servers).map(|port| format!("10.0.0.1:{port}")).collect();
    Ok(fixed::open(&RegistryUrl::parse(&format!("static:book={}", listed.join(",")))?)?)
}

async fn connect(instance: Arc<Instance>) -> Result<usize, Error> {
    Ok(usize::from(instance.address().port()) - 1)
}

/// Clients that are connected to all servers.
pub(crate) async fn clients(
    contender: &Contender,
    servers: usize,
    count: usize,
    rng: &mut fastrand::Rng,
) -> Result<Vec<Client>, Error> {
    let registry = registry(servers)?;
    let service: ServiceName = "book".parse()?;
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut endpoints = Endpointer::builder(registry.watch(&service), connect).seed(rng.u64(..));
        if let Some(rule) = contender.ejection {
            endpoints = endpoints.ejection(rule);
        }
        let endpoints = endpoints.build();
        endpoints.wait_for(|set| set.len() == servers).await;
        clients.push(Balancer::with_seed(endpoints, contender.policy, rng.u64(..)).clock(tick));
    }
    Ok(clients)
}
