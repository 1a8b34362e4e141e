//! go-micro: `{"name":"book","version":"latest","metadata":null,"endpoints":null,"nodes":[{"metadata":{"protocol":"grpc"},
//! "id":"book-1f2e","address":"10.0.0.1:9000"}]}`.

use std::collections::BTreeMap;

use callsign_core::formats::{Own, bare, identified, pairs};
use callsign_core::{Instance, InstanceId, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Fields;

/// The version of a service that has none.
const LATEST: &str = "latest";
/// Where it says what is spoken at an address, among the metadata.
const PROTOCOL_KEY: &str = "protocol";

#[derive(Serialize)]
struct Service<'a> {
    name: &'a str,
    version: &'a str,
    metadata: Option<()>,
    endpoints: Option<()>,
    nodes: [Node<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    callsign: Option<Own>,
}

#[derive(Serialize)]
struct Node<'a> {
    metadata: Option<BTreeMap<&'a str, &'a str>>,
    id: &'a str,
    address: String,
}

#[derive(Deserialize)]
struct ReadNode {
    metadata: Option<Value>,
    id: Option<String>,
    address: Option<String>,
}

pub(super) fn encode(instance: &Instance) -> Option<Vec<u8>> {
    let mut metadata: BTreeMap<&str, &str> =
        instance.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut own = Own::of(instance);
    // Of what the format says itself, that alone which it would take for something else.
    own.version = own.version.filter(|version| version == LATEST);
    if metadata.contains_key(PROTOCOL_KEY) {
        own.kept.push(PROTOCOL_KEY.to_owned());
    } else if let Some(protocol) = instance.protocol() {
        metadata.insert(PROTOCOL_KEY, protocol);
        own.protocol = None;
    }
    let service = Service {
        name: instance.service().as_str(),
        version: instance.version().unwrap_or(LATEST),
        metadata: None,
        endpoints: None,
        nodes: [Node {
            metadata: (!metadata.is_empty()).then_some(metadata),
            id: instance.id().as_str(),
            address: instance.address().to_string(),
        }],
        callsign: own.if_any(),
    };
    serde_json::to_vec(&service).ok()
}

/// An instance for each node; there is one, as a rule, and the key is its id.
pub(super) fn decode(
    service: &ServiceName,
    id: &InstanceId,
    fields: Fields,
) -> Result<Vec<Instance>, String> {
    let nodes: Vec<ReadNode> = serde_json::from_value(fields.nodes.unwrap_or_default())
        .map_err(|error| format!("the nodes are not as go-micro has them: {error}"))?;
    if nodes.is_empty() {
        return Err("the value has no node".to_owned());
    }
    let alone = nodes.len() == 1;
    let version = match fields.version {
        Some(Value::String(version)) if !version.is_empty() && version != LATEST => Some(version),
        _ => None,
    };
    let own = fields.callsign.unwrap_or_default();
    let mut all = Vec::new();
    for node in nodes {
        let address = node.address.ok_or("a node has no address")?;
        let mut instance = bare::decode(service, &address)?;
        let mut pairs = pairs(node.metadata);
        if let Some(at) = pairs.iter().position(|(key, _)| key == PROTOCOL_KEY && !own.kept.contains(key))
            // What is no protocol by our rules stays what it is: metadata.
            && let Ok(said) = instance.clone().with_protocol(&pairs[at].1)
        {
            instance = said;
            pairs.swap_remove(at);
        }
        if let Some(version) = &version {
            instance = instance.with_version(version).map_err(|error| error.to_string())?;
        }
        instance = own.clone().apply(instance).map_err(|error| error.to_string())?;
        instance = instance.with_all_metadata(pairs).map_err(|error| error.to_string())?;
        let own_id = node.id.filter(|_| !alone).map(|id| InstanceId::new(&id));
        let own_id = own_id.transpose().map_err(|error| error.to_string())?;
        all.push(identified(instance, own_id.as_ref().unwrap_or(id))?);
    }
    Ok(all)
}
