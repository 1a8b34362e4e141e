//! What Consul has: [`Entry`], a [`Service`] on a node with all of their checks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Registration;
use super::own::INCARNATION;

/// What stands before the mark in the id of the check by which an owner says that it lives.
const BEAT: &str = "callsign:";

/// The id of the check by which the owner of an entry says that it lives. It has the mark, so that nobody keeps
/// another's entry alive.
pub(crate) fn beat_id(incarnation: &str) -> String {
    format!("{BEAT}{incarnation}")
}

/// A tagged address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tagged {
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) port: u32,
}

/// What share of requests a service is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Weights {
    #[serde(default)]
    pub(crate) passing: i64,
    #[serde(default)]
    pub(crate) warning: i64,
}

/// A service as agent and catalog have it. They call its name `Service`; `Tags`, `Meta` and others can be `null`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Service {
    #[serde(rename = "ID", default)]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) address: Option<String>,
    #[serde(default)]
    pub(crate) port: i64,
    #[serde(default)]
    pub(crate) tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) tagged_addresses: Option<BTreeMap<String, Tagged>>,
    #[serde(default)]
    pub(crate) weights: Option<Weights>,
    /// The index at which the catalog got it; agents do not say.
    #[serde(default)]
    pub(crate) create_index: u64,
}

impl Service {
    pub(crate) fn meta(&self, key: &str) -> Option<&str> {
        self.meta.as_ref()?.get(key).map(String::as_str)
    }

    /// Whose it is, if it is one of ours.
    pub(crate) fn incarnation(&self) -> Option<&str> {
        self.meta(INCARNATION)
    }

    /// Whether it is what `wanted` says, but for what Consul adds by itself.
    pub(crate) fn is(&self, wanted: &Registration) -> bool {
        let tagged = |tagged: Option<&BTreeMap<String, Tagged>>| {
            let all = tagged.into_iter().flatten().filter(|(name, _)| !is_of_consul(name));
            all.map(|(name, tagged)| (name.clone(), tagged.clone())).collect::<BTreeMap<_, _>>()
        };
        self.address.as_deref() == Some(&wanted.address)
            && self.port == i64::from(wanted.port)
            && self.tags.as_deref().unwrap_or_default() == wanted.tags
            && self.meta.as_ref().is_some_and(|meta| *meta == wanted.meta)
            && self.weights == Some(wanted.weights)
            && tagged(self.tagged_addresses.as_ref()) == tagged(Some(&wanted.tagged_addresses))
    }
}

/// The tagged addresses that Consul makes up of the address that it is told.
pub(super) fn is_of_consul(name: &str) -> bool {
    name.starts_with("lan") || name.starts_with("wan") || name == "virtual"
}

/// How alive Consul takes an entry for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    Passing,
    Warning,
    Critical,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Node {
    #[serde(default)]
    pub(super) node: String,
    #[serde(default)]
    pub(super) address: String,
}

/// A check of a service or of its node.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Check {
    #[serde(rename = "CheckID", default)]
    pub(crate) id: String,
    /// Empty for one of the node.
    #[serde(rename = "ServiceID", default)]
    service_id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    pub(crate) output: String,
}

impl Check {
    pub(crate) fn health(&self) -> Health {
        match &*self.status {
            "passing" => Health::Passing,
            "warning" => Health::Warning,
            // Maintenance too.
            _ => Health::Critical,
        }
    }

    /// Whose word it is, if an owner says by it that it lives.
    pub(crate) fn mark(&self) -> Option<&str> {
        self.id.strip_prefix(BEAT)
    }
}

/// What checks say together.
pub(crate) fn worst<'a>(checks: impl IntoIterator<Item = &'a Check>) -> Health {
    checks.into_iter().map(Check::health).max().unwrap_or(Health::Passing)
}

/// Whether the owner of a marked service says that it lives: by the check that bears the mark, whatever else finds.
pub(crate) fn beats(service: &Service, checks: &[Check]) -> bool {
    let Some(mark) = service.incarnation() else { return false };
    let beat = beat_id(mark);
    match checks.iter().find(|check| check.id == beat) {
        Some(check) => check.health() != Health::Critical,
        None => worst(checks) != Health::Critical,
    }
}

/// One of what the health endpoint lists.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    pub(super) node: Node,
    pub(crate) service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

impl Entry {
    pub(crate) fn node(&self) -> &str {
        &self.node.node
    }

    /// The host to call, which may be the node's.
    pub(super) fn address(&self) -> &str {
        match self.service.address.as_deref() {
            None | Some("") => &self.node.address,
            Some(address) => address,
        }
    }

    pub(super) fn port(&self) -> Option<u16> {
        u16::try_from(self.service.port).ok().filter(|port| *port != 0)
    }

    pub(crate) fn checks(&self) -> &[Check] {
        self.checks.as_deref().unwrap_or_default()
    }

    /// What all checks say together; those of its node count as those of its own.
    pub(crate) fn health(&self) -> Health {
        worst(self.checks())
    }

    /// Whether its owner says that it lives.
    pub(crate) fn beats(&self) -> bool {
        beats(&self.service, self.checks())
    }

    /// Whether its node is not lost either.
    pub(crate) fn lives(&self) -> bool {
        let of_node = self.checks().iter().filter(|check| check.service_id.is_empty());
        self.beats() && worst(of_node) != Health::Critical
    }
}
