//! [`Way`]: how the client library gets to the servers, and what it does not say of why it does not.

#[cfg(feature = "tls")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use callsign_core::{Address, Connector, Result};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;
#[cfg(feature = "tls")]
use tokio::time::sleep;
use zookeeper_client::Client;

use crate::frames::trouble_with;
#[cfg(feature = "tls")]
use crate::relay::{Relay, SCHEME};

/// For how long it is known why servers are of no use.
const KNOWN: Duration = Duration::from_secs(10);

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
    pub(crate) runtime: Handle,
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

    /// The client library's connector, and what it is to connect to.
    pub(crate) fn connector(&self) -> Result<(zookeeper_client::Connector, &str)> {
        let connector = Client::connector();
        #[cfg(feature = "tls")]
        if let Some(relay) = self.relay()? {
            return Ok((connector.with_auth(SCHEME, relay.word()), relay.doors()));
        }
        Ok((connector, &self.hosts))
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

fn told(troubles: &[String]) -> String {
    if troubles.is_empty() { String::new() } else { format!(" ({})", troubles.join("; ")) }
}
