//! The bytes: from an [`Instance`] to what an agent is told ([`encode`]), and from an entry of the catalog to
//! instances ([`decode`]). Pure.
//!
//! Entries that bear our mark are taken by what it says; all others by the conventions of whoever writes such: the
//! address and port that everybody has, Kratos' tagged addresses, Spring Cloud's `secure` and `zone`, go-micro's tags.

mod entry;
mod foreign;
mod micro;
mod own;
mod pack;

use std::collections::BTreeMap;

use callsign_core::{Instance, InstanceId, ServiceName};
use serde::Serialize;

pub(crate) use entry::{Check, Entry, Health, Service, beat_id, beats, worst};
use entry::{Tagged, Weights};
use foreign::decode_foreign;
pub(crate) use own::{AGAIN, is_older, new_incarnation};
use own::{decode_own, encode_own};

/// How instances are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Address and port as everybody reads them, the rest among the metadata: in full below keys that begin with
    /// `callsign`, and what Consul takes as it is under its own name.
    #[default]
    Callsign,
    /// The same with what Kratos reads: the endpoint as a tagged address, weight and version where it looks for them.
    Kratos,
}

impl Format {
    /// All, by the names that a URL has for them.
    pub(crate) const ALL: [(&'static str, Self); 2] =
        [("callsign", Self::Callsign), ("kratos", Self::Kratos)];
}

/// What an agent is told to register; the check that comes with it is the lease's affair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Registration {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) tags: Vec<String>,
    pub(crate) meta: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tagged_addresses: BTreeMap<String, Tagged>,
    pub(crate) weights: Weights,
    pub(crate) enable_tag_override: bool,
}

/// The id of our entry in Consul, where an id is unique in its agent and not only in its service.
pub(crate) fn service_id(service: &ServiceName, id: &InstanceId) -> String {
    // Upper case is the same as lower case to Consul.
    let mut escaped = format!("{service}:");
    for c in id.as_str().chars() {
        if c.is_uppercase() || c == '%' {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| escaped.push_str(&format!("%{byte:02x}")));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// What is taken of what others register.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taking {
    /// Also what has a check that warns.
    pub(crate) warnings: bool,
    /// Of several endpoints, those that speak this.
    pub(crate) protocol: Option<String>,
}

impl Taking {
    fn takes(&self, health: Health) -> bool {
        health == Health::Passing || (health == Health::Warning && self.warnings)
    }
}

/// The instances that an entry stands for: none if it is not to be called.
pub(crate) fn decode(name: &ServiceName, entry: &Entry, taking: &Taking) -> Result<Vec<Instance>, String> {
    let service = &entry.service;
    let Some(mark) = service.incarnation() else { return decode_foreign(name, entry, taking) };
    // Whoever leaves has a beat that warns, so that nobody else calls it.
    let beat = beat_id(mark);
    let others = entry.checks().iter().filter(|check| check.id != beat);
    if !entry.beats() || !taking.takes(worst(others)) {
        return Ok(Vec::new());
    }
    let port = entry.port().ok_or_else(|| bad_port(service.port))?;
    decode_own(name, service, entry.address(), port).map(|instance| vec![instance])
}

fn bad_port(port: i64) -> String {
    format!("port {port}: a port is 1 to 65535")
}

/// What an agent is told of an instance.
///
/// # Errors
/// Metadata that Consul has no room for.
pub(crate) fn encode(
    format: Format,
    instance: &Instance,
    incarnation: &str,
) -> callsign_core::Result<Registration> {
    encode_own(format, instance, incarnation)
}

#[cfg(test)]
mod tests;
