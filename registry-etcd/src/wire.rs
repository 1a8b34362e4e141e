//! Instances as keys and values of etcd, and back. Pure: the entries are [`Keys`], [`encode`] and [`decode`].
//!
//! What is written is one [`Format`]; what is read is recognised by its content. Parsers ignore fields that
//! they do not know, and take `null` for absent.

use std::collections::BTreeMap;

use callsign_core::{Instance, InstanceId, ServiceName, State};
use percent_encoding::percent_decode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How an instance is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// gRPC-Go's naming in etcd: key `services/NAME/ID`, value `{"Op":0,"Addr":"10.0.0.1:9000","Metadata":null}`.
    /// Carries everything; the default.
    #[default]
    Grpc,
    /// Go kit: key `/services/NAME/ID`, value the bare address. Carries the address alone: an instance that
    /// drains or is down is withdrawn instead.
    GoKit,
}

/// The largest value that is read; etcd itself refuses requests above 1.5 MiB by default.
pub(crate) const MAX_VALUE: usize = 1024 * 1024;

/// Where instances are: below one prefix with a leading slash, and the same without.
///
/// etcd's Go naming client strips the slash, Go kit keeps it, so both are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// `services`: neither a leading nor a trailing slash.
    base: String,
}

impl Keys {
    pub(crate) fn new(base: &str) -> Self {
        Self { base: base.trim_matches('/').to_owned() }
    }

    /// Both prefixes, each ending in a slash.
    pub(crate) fn roots(&self) -> [String; 2] {
        [format!("{}/", self.base), format!("/{}/", self.base)]
    }

    /// The prefix that a format writes below.
    pub(crate) fn root(&self, format: Format) -> String {
        let [bare, slashed] = self.roots();
        match format {
            Format::Grpc => bare,
            Format::GoKit => slashed,
        }
    }

    /// Both prefixes of one service. They end in a slash, or `book` would find `book2` too.
    pub(crate) fn of_service(&self, service: &ServiceName) -> [String; 2] {
        self.roots().map(|root| format!("{root}{service}/"))
    }

    /// The key that an instance is written to.
    pub(crate) fn of_instance(&self, format: Format, service: &ServiceName, id: &InstanceId) -> String {
        format!("{}{service}/{}", self.root(format), escape(id.as_str()))
    }

    /// Every key that an id can be found under: in both prefixes, escaped by us or written as it is by others.
    pub(crate) fn all_of_instance(&self, service: &ServiceName, id: &InstanceId) -> Vec<String> {
        let escaped = escape(id.as_str());
        let mut keys = Vec::new();
        for prefix in self.of_service(service) {
            keys.push(format!("{prefix}{escaped}"));
            // Only if it stands for this id: "a%2Fb" as it is would be the key of "a/b".
            if escaped != id.as_str() && id_of(id.as_str().as_bytes()).is_ok_and(|same| same == *id) {
                keys.push(format!("{prefix}{id}"));
            }
        }
        keys
    }
}

/// The first segment behind a root, if it can be a service's name.
pub(crate) fn service_of(root: &str, key: &[u8]) -> Option<ServiceName> {
    let rest = key.strip_prefix(root.as_bytes())?;
    let end = rest.iter().position(|&b| b == b'/')?;
    ServiceName::new(std::str::from_utf8(&rest[..end]).ok()?).ok()
}

/// An id as one segment of a key: `/`, `%` and control characters as `%XX`, all else as it is.
fn escape(id: &str) -> String {
    let mut key = String::with_capacity(id.len());
    for c in id.chars() {
        if matches!(c, '/' | '%') || c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                key.push_str(&format!("%{byte:02X}"));
            }
        } else {
            key.push(c);
        }
    }
    key
}

/// The id in what follows a service's prefix.
pub(crate) fn id_of(rest: &[u8]) -> Result<InstanceId, String> {
    let text = percent_decode(rest).decode_utf8().map_err(|_| "the key is not UTF-8".to_owned())?;
    InstanceId::new(&text).map_err(|error| error.to_string())
}

/// An instance's value; `None` where the format can only say that it is not there.
pub(crate) fn encode(format: Format, instance: &Instance) -> Option<Vec<u8>> {
    match format {
        Format::GoKit => (instance.state() == State::Up).then(|| instance.address().to_string().into_bytes()),
        Format::Grpc => {
            let metadata = (!instance.metadata().is_empty()).then(|| instance.metadata());
            let own = Own {
                protocol: instance.protocol().map(Into::into),
                state: (instance.state() != State::Up).then(|| instance.state().as_str().into()),
                version: instance.version().map(Into::into),
                weight: (instance.weight() != 1).then(|| instance.weight()),
                zone: instance.zone().map(Into::into),
            };
            let own = (own != Own::default()).then_some(own);
            let naming = Naming { op: 0, addr: instance.address().to_string(), metadata, callsign: own };
            // Strings and numbers in structs: nothing that JSON could not hold.
            serde_json::to_vec(&naming).ok()
        }
    }
}

/// gRPC-Go's naming value as it is written: this order, no spaces.
#[derive(Serialize)]
struct Naming<'a> {
    #[serde(rename = "Op")]
    op: u8,
    #[serde(rename = "Addr")]
    addr: String,
    #[serde(rename = "Metadata")]
    metadata: Option<&'a BTreeMap<String, String>>,
    /// Beside `Metadata` and not in it: Go's resolver hands that to gRPC, which compares it with `==` and panics
    /// on an object, so that a mere change of state or weight would bring Go clients down.
    #[serde(skip_serializing_if = "Option::is_none")]
    callsign: Option<Own>,
}

/// What the naming format has no place for, each only where it is not the default.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Own {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    zone: Option<String>,
}

/// The same as it is read.
#[derive(Deserialize)]
struct Read {
    #[serde(rename = "Addr")]
    addr: Option<String>,
    #[serde(rename = "Metadata")]
    metadata: Option<Value>,
    callsign: Option<Own>,
}

/// What an entry says, or why it cannot be understood. Accepts the value of any format.
pub(crate) fn decode(service: &ServiceName, id: &InstanceId, value: &[u8]) -> Result<Instance, String> {
    if value.len() > MAX_VALUE {
        return Err(format!("the value has {} bytes, more than {MAX_VALUE}", value.len()));
    }
    let text = std::str::from_utf8(value).map_err(|_| "the value is not UTF-8".to_owned())?.trim();
    let instance =
        if text.starts_with('{') { decode_naming(service, text) } else { decode_bare(service, text) }?;
    instance.with_id(id.as_str()).map_err(|error| error.to_string())
}

/// `1.2.3.4:8080` or `http://1.2.3.4:8080`.
fn decode_bare(service: &ServiceName, text: &str) -> Result<Instance, String> {
    let said = |error: callsign_core::Error| error.to_string();
    let Some((protocol, rest)) = text.split_once("://") else {
        return Instance::new(service, text).map_err(said);
    };
    let address = rest.strip_suffix('/').unwrap_or(rest);
    Instance::new(service, address).and_then(|instance| instance.with_protocol(protocol)).map_err(said)
}

fn decode_naming(service: &ServiceName, text: &str) -> Result<Instance, String> {
    let read: Read =
        serde_json::from_str(text).map_err(|error| format!("the value is no such JSON: {error}"))?;
    let addr = read.addr.ok_or("the value is JSON without \"Addr\"")?;
    let mut instance = decode_bare(service, &addr)?;
    if let Some(own) = read.callsign {
        instance = with_own(instance, own).map_err(|error| error.to_string())?;
    }
    let pairs: Vec<(String, String)> = match read.metadata {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(pairs)) => pairs
            .into_iter()
            .filter(|(key, value)| !value.is_null() && is_ours_to_hold(key))
            .map(|(key, value)| (key, as_text(value)))
            .collect(),
        // Go's type is `any`: what is no object has no keys of its own.
        Some(other) => vec![("metadata".to_owned(), as_text(other))],
    };
    instance.with_all_metadata(pairs).map_err(|error| error.to_string())
}

fn with_own(mut instance: Instance, own: Own) -> callsign_core::Result<Instance> {
    if let Some(protocol) = own.protocol {
        instance = instance.with_protocol(&protocol)?;
    }
    if let Some(state) = own.state {
        instance = instance.with_state(state.parse()?);
    }
    if let Some(version) = own.version {
        instance = instance.with_version(&version)?;
    }
    if let Some(weight) = own.weight {
        instance = instance.with_weight(weight);
    }
    if let Some(zone) = own.zone {
        instance = instance.with_zone(&zone)?;
    }
    Ok(instance)
}

/// Whether the model has room for a key that somebody else chose; one odd key is no reason to lose an instance.
fn is_ours_to_hold(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 256
        && !key.chars().any(char::is_control)
        && !key.starts_with(Instance::RESERVED_PREFIX)
}

fn as_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
