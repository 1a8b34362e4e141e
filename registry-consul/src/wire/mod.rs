//! The bytes: from an [`Instance`] to what an agent is told ([`encode`]), and from an entry of the catalog to
//! instances ([`decode`]). Pure.
//!
//! Entries that bear our mark are taken by what it says; all others by the conventions of whoever writes such: the
//! address and port that everybody has, Kratos' tagged addresses, Spring Cloud's `secure` and `zone`.

mod own;
mod pack;

use std::collections::BTreeMap;

use callsign_core::{Instance, InstanceId, ServiceName};
use serde::{Deserialize, Serialize};

use own::{INCARNATION, decode_own, encode_own};
pub(crate) use own::{is_older, new_incarnation};

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
fn is_of_consul(name: &str) -> bool {
    name.starts_with("lan") || name.starts_with("wan") || name == "virtual"
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

/// How alive Consul takes an entry for, all of its checks together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    Passing,
    Warning,
    Critical,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    node: String,
    #[serde(default)]
    address: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default)]
    status: String,
}

/// One of what the health endpoint lists.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    node: Node,
    pub(crate) service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

impl Entry {
    pub(crate) fn node(&self) -> &str {
        &self.node.node
    }

    /// Those of its node count as those of its own.
    pub(crate) fn health(&self) -> Health {
        let of = |check: &Check| match &*check.status {
            "passing" => Health::Passing,
            "warning" => Health::Warning,
            _ => Health::Critical,
        };
        self.checks.iter().flatten().map(of).max().unwrap_or(Health::Passing)
    }
}

/// What is taken of what others register.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taking {
    /// Also what has a check that warns.
    pub(crate) warnings: bool,
    /// Of several endpoints, those that speak this.
    pub(crate) protocol: Option<String>,
}

/// The instances that an entry stands for: none if it is not to be called.
pub(crate) fn decode(name: &ServiceName, entry: &Entry, taking: &Taking) -> Result<Vec<Instance>, String> {
    let (service, health) = (&entry.service, entry.health());
    let address = match service.address.as_deref() {
        None | Some("") => &entry.node.address,
        Some(address) => address,
    };
    let port = u16::try_from(service.port).ok().filter(|port| *port != 0);
    if service.incarnation().is_some() {
        // Whoever leaves has a check that warns, so that nobody else calls it.
        if health == Health::Critical {
            return Ok(Vec::new());
        }
        let port = port.ok_or_else(|| bad_port(service.port))?;
        return decode_own(name, service, address, port).map(|instance| vec![instance]);
    }
    if health == Health::Critical || (health == Health::Warning && !taking.warnings) {
        return Ok(Vec::new());
    }
    let endpoints = endpoints(service);
    let several = endpoints.len() > 1 && taking.protocol.is_none();
    let mut instances = Vec::new();
    for (protocol, host, port) in endpoints {
        if taking
            .protocol
            .as_ref()
            .is_some_and(|wanted| *wanted != protocol && format!("{wanted}s") != protocol)
        {
            continue;
        }
        let id = if several { format!("{}@{protocol}", foreign_id(entry)) } else { foreign_id(entry) };
        instances.push(foreign(name, service, &id, &host, port, Some(&protocol), health)?);
    }
    if instances.is_empty() && service.tagged_addresses.iter().flatten().all(|(name, _)| is_of_consul(name)) {
        let port = port.ok_or_else(|| bad_port(service.port))?;
        let protocol = match (service.meta("secure"), service.meta("protocol")) {
            (_, Some(protocol)) => Some(protocol),
            (Some("true"), None) => Some("https"),
            (Some("false"), None) => Some("http"),
            _ => None,
        };
        instances.push(foreign(name, service, &foreign_id(entry), address, port, protocol, health)?);
    }
    Ok(instances)
}

fn bad_port(port: i64) -> String {
    format!("port {port}: a port is 1 to 65535")
}

/// Of what others register the ids are unique in a node only.
fn foreign_id(entry: &Entry) -> String {
    format!("{}@{}", entry.service.id, entry.node.node)
}

/// Kratos' endpoints: tagged addresses that are URLs, as protocol, host and port.
fn endpoints(service: &Service) -> Vec<(String, String, u16)> {
    let tagged = service.tagged_addresses.iter().flatten().filter(|(name, _)| !is_of_consul(name));
    tagged
        .filter_map(|(_, tagged)| {
            let (scheme, rest) = tagged.address.split_once("://")?;
            let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
            let secure = query.split('&').any(|pair| pair.eq_ignore_ascii_case("isSecure=true"));
            let address: callsign_core::Address = authority.trim_end_matches('/').parse().ok()?;
            let protocol = format!("{scheme}{}", if secure { "s" } else { "" });
            Some((protocol, address.host().to_owned(), address.port()))
        })
        .collect()
}

fn foreign(
    name: &ServiceName,
    service: &Service,
    id: &str,
    host: &str,
    port: u16,
    protocol: Option<&str>,
    health: Health,
) -> Result<Instance, String> {
    let say = |error: callsign_core::Error| error.to_string();
    let mut instance = own::at(name, host, port).and_then(|instance| instance.with_id(id)).map_err(say)?;
    if let Some(protocol) = protocol {
        instance = instance.with_protocol(protocol).map_err(say)?;
    }
    let weights = service.weights.unwrap_or(Weights { passing: 1, warning: 1 });
    let weight = if health == Health::Warning { weights.warning } else { weights.passing };
    instance = instance.with_weight(u32::try_from(weight.max(0)).unwrap_or(u32::MAX));
    if let Some(zone) = service.meta("zone").filter(|zone| !zone.is_empty()) {
        instance = instance.with_zone(zone).map_err(say)?;
    }
    let version = service.tags.iter().flatten().find_map(|tag| tag.strip_prefix("version="));
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        instance = instance.with_version(version).map_err(say)?;
    }
    let kept = |key: &str| key != "zone" && !key.is_empty() && !key.starts_with(Instance::RESERVED_PREFIX);
    let pairs = service.meta.iter().flatten().filter(|(key, _)| kept(key));
    instance.with_all_metadata(pairs.map(|(key, value)| (key.clone(), value.clone()))).map_err(say)
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
