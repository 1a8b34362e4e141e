//! [`Way`]: how the client library gets to the servers, and what it does not say of why it does not.
//!
//! Of the addresses that a name has the library dials the first, each time, and those after it only where that refuses at
//! once. So it is given each of them, as if it were a server by itself.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
#[cfg(feature = "tls")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use callsign_core::{Address, Connector, Result};
use tokio::net::lookup_host;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
#[cfg(feature = "tls")]
use tokio::time::sleep;
use tokio::time::{Instant, timeout_at};
use zookeeper_client::Client;

use crate::frames::trouble_with;
#[cfg(feature = "tls")]
use crate::relay::{Relay, SCHEME};

/// For how long it is known why servers are of no use.
const KNOWN: Duration = Duration::from_secs(10);
/// How long it may take to find the addresses of names. The library finds one of each that takes longer by itself.
const FIND: Duration = Duration::from_secs(1);

pub(crate) struct Way {
    addresses: Vec<Address>,
    /// The servers, for people, and for the client library where it gets to them by itself.
    hosts: String,
    connector: Arc<Connector>,
    #[cfg(feature = "tls")]
    tls: Option<OnceLock<Relay>>,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "without TLS there is no other way"))]
    patience: Duration,
    /// When servers were last asked why they are of no use, and what came of it.
    asked: Mutex<Option<(Instant, Vec<String>)>>,
    /// Where the tasks of connections run, whoever's call opens them.
    runtime: Handle,
}

impl Way {
    /// To `addresses`, over TLS if `tls`, whose servers may take for `patience` until they have said something.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "without TLS there is no other way"))]
    pub(crate) fn new(
        addresses: Vec<Address>,
        connector: Connector,
        tls: bool,
        patience: Duration,
        runtime: Handle,
    ) -> Self {
        let hosts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        Self {
            addresses,
            hosts: hosts.join(","),
            connector: Arc::new(connector),
            #[cfg(feature = "tls")]
            tls: tls.then(OnceLock::new),
            patience,
            asked: Mutex::default(),
            runtime,
        }
    }

    /// The servers, for people.
    pub(crate) fn hosts(&self) -> &str {
        &self.hosts
    }

    /// The client library's connector, for [`connect`](Self::connect).
    pub(crate) fn connector(&self) -> Result<zookeeper_client::Connector> {
        let connector = Client::connector();
        #[cfg(feature = "tls")]
        if let Some(relay) = self.relay()? {
            return Ok(connector.with_auth(SCHEME, relay.word()));
        }
        Ok(connector)
    }

    /// A session with the servers. What it spawns runs on the registry's runtime, though it be polled on another.
    pub(crate) async fn connect(
        &self,
        connector: zookeeper_client::Connector,
    ) -> Result<Client, zookeeper_client::Error> {
        let mut connecting = Box::pin(async move { connector.connect(&self.servers().await).await });
        poll_fn(move |cx| {
            let _on = self.runtime.enter();
            connecting.as_mut().poll(cx)
        })
        .await
    }

    /// What the client library is to connect to.
    async fn servers(&self) -> Cow<'_, str> {
        #[cfg(feature = "tls")]
        if let Some(relay) = self.tls.as_ref().and_then(OnceLock::get) {
            return relay.doors().into();
        }
        let mut finding = JoinSet::new();
        for address in self.addresses.iter().filter(|address| address.host().parse::<IpAddr>().is_err()) {
            let (host, port) = (address.host().to_owned(), address.port());
            finding
                .spawn_on(async move { lookup_host((host, port)).await.map(Vec::from_iter) }, &self.runtime);
        }
        let (mut found, by) = (Vec::new(), Instant::now() + FIND);
        while let Ok(Some(answer)) = timeout_at(by, finding.join_next()).await {
            // An error: the library asks again, and passes over what does not resolve.
            found.extend(answer.ok().and_then(Result::ok));
        }
        with_each(&self.hosts, found)
    }

    #[cfg(feature = "tls")]
    fn relay(&self) -> Result<Option<&Relay>> {
        let Some(relay) = &self.tls else { return Ok(None) };
        if let Some(relay) = relay.get() {
            return Ok(Some(relay));
        }
        // Whoever comes second drops the doors that it has opened.
        let opened = Relay::open(&self.addresses, Arc::clone(&self.connector), self.patience, &self.runtime)?;
        Ok(Some(relay.get_or_init(|| opened)))
    }

    /// Why servers were of no use, as far as it is known without asking them; to be added to a sentence.
    pub(crate) fn refused(&self) -> String {
        #[cfg(feature = "tls")]
        if let Some(relay) = self.tls.as_ref().and_then(OnceLock::get) {
            return told(&relay.refused());
        }
        String::new()
    }

    /// Why servers are of no use; asks them, unless that was done just now: they may be out of connections.
    pub(crate) async fn trouble(&self) -> String {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            // The relay hears a moment later that the client library has lost its patience.
            sleep(Duration::from_millis(10)).await;
            return self.refused();
        }
        let known = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, known)) = known.filter(|(at, _)| at.elapsed() < KNOWN) {
            return told(&known);
        }
        let mut asked = JoinSet::new();
        for address in self.addresses.clone() {
            let connector = Arc::clone(&self.connector);
            asked.spawn_on(async move { trouble_with(&connector, &address).await }, &self.runtime);
        }
        let mut troubles = Vec::new();
        while let Some(answered) = asked.join_next().await {
            troubles.extend(answered.ok().flatten());
        }
        troubles.sort();
        let said = told(&troubles);
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), troubles));
        said
    }
}

/// Hosts, and besides each address of a name that has several. The name stays: its addresses may be others by the next
/// time that the connection is lost.
fn with_each(hosts: &str, found: Vec<Vec<SocketAddr>>) -> Cow<'_, str> {
    let mut each: Vec<_> = found.into_iter().filter(|found| found.len() > 1).flatten().collect();
    if each.is_empty() {
        return hosts.into();
    }
    each.sort_unstable();
    each.dedup();
    each.iter().fold(hosts.to_owned(), |hosts, address| format!("{hosts},{address}")).into()
}

fn told(troubles: &[String]) -> String {
    if troubles.is_empty() { String::new() } else { format!(" ({})", troubles.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_a_name_is_a_server() {
        let found =
            |found: &[&str]| found.iter().map(|one| one.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let names = vec![found(&["10.0.0.2:1", "[::1]:1", "10.0.0.2:1"]), found(&["10.0.0.9:1"]), Vec::new()];
        assert_eq!(with_each("a:1,b:1,c:1", names), "a:1,b:1,c:1,10.0.0.2:1,[::1]:1");
        assert_eq!(with_each("b:1", vec![found(&["10.0.0.9:1"])]), "b:1");
    }
}
