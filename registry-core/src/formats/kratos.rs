//! Kratos: `{"id":"a1b2","name":"book","version":"v1","metadata":{"weight":"10"},"endpoints":["grpc://10.0.0.1:9000"]}`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{Own, Read, as_weight, bare, identified, pairs, sibling};
use crate::model::{Instance, InstanceId, ServiceName};

/// Where it looks for the weight, among the metadata. What has none counts as 1 here and as 100 there: where some say
/// theirs, all should.
const WEIGHT_KEY: &str = "weight";

#[derive(Serialize)]
struct Kratos<'a> {
    id: &'a str,
    name: &'a str,
    version: &'a str,
    metadata: Option<BTreeMap<&'a str, String>>,
    endpoints: [String; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    callsign: Option<Own>,
}

/// An instance as Kratos writes it. `None` if JSON had no room for it, as it has for all text.
#[must_use]
pub fn encode(instance: &Instance) -> Option<Vec<u8>> {
    let mut metadata: BTreeMap<&str, String> =
        instance.metadata().iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let mut own = Own { zone: instance.zone().map(Into::into), ..Own::default() };
    if metadata.contains_key(WEIGHT_KEY) {
        own.weight = (instance.weight() != 1).then(|| instance.weight());
        own.kept.push(WEIGHT_KEY.to_owned());
    } else if instance.weight() != 1 {
        metadata.insert(WEIGHT_KEY, instance.weight().to_string());
    }
    let kratos = Kratos {
        id: instance.id().as_str(),
        name: instance.service().as_str(),
        version: instance.version().unwrap_or_default(),
        metadata: (!metadata.is_empty()).then_some(metadata),
        endpoints: [endpoint(instance)],
        callsign: own.if_any(),
    };
    serde_json::to_vec(&kratos).ok()
}

/// Where Kratos finds an instance: what says no protocol is taken for gRPC, as Kratos calls what has no scheme by none of
/// its clients.
///
/// ```
/// use callsign_core::Instance;
/// use callsign_core::formats::kratos::endpoint;
///
/// assert_eq!(endpoint(&Instance::new("book", "[::1]:9000")?), "grpc://[::1]:9000");
/// # Ok::<(), callsign_core::Error>(())
/// ```
#[must_use]
pub fn endpoint(instance: &Instance) -> String {
    format!("{}://{}", instance.protocol().unwrap_or("grpc"), instance.address())
}

/// The fields of what Kratos wrote. Values, as the frameworks' types are not the only ones that are met.
#[derive(Debug, Default)]
pub struct Fields {
    /// Where it is served: `grpc://10.0.0.1:9000?isSecure=true`.
    pub endpoints: Vec<Value>,
    /// The version of the service.
    pub version: Option<Value>,
    /// The metadata, an object.
    pub metadata: Option<Value>,
    /// What is ours.
    pub callsign: Option<Own>,
}

/// An instance for each endpoint that serves `protocol`, where one is given. One that has several shares its entry with its
/// siblings, so that their protocol tells their ids apart.
///
/// # Errors
/// There is no endpoint, or one that is none.
pub fn decode(
    service: &ServiceName,
    id: &InstanceId,
    fields: Fields,
    protocol: Option<&str>,
) -> Read<Vec<Instance>> {
    if fields.endpoints.is_empty() {
        return Err("the entry has no endpoint".to_owned());
    }
    let Own { zone, weight, kept, .. } = fields.callsign.unwrap_or_default();
    let mut pairs = pairs(fields.metadata);
    let said = pairs.iter().position(|(key, _)| key == WEIGHT_KEY && !kept.contains(key)).and_then(|at| {
        let weight = as_weight(&Value::String(pairs[at].1.clone()))?;
        pairs.swap_remove(at);
        Some(weight)
    });
    let weight = said.or(weight);
    let mut wanted = Vec::new();
    for endpoint in &fields.endpoints {
        let instance = one(service, endpoint.as_str().ok_or("an endpoint is no text")?)?;
        if protocol.is_none_or(|wanted| speaks(&instance, wanted)) {
            wanted.push(instance);
        }
    }
    let alone = wanted.len() == 1;
    let mut all: Vec<Instance> = Vec::new();
    for (at, instance) in wanted.into_iter().enumerate() {
        let mut instance = instance.with_weight(weight.unwrap_or(1));
        if let Some(Value::String(version)) = fields.version.as_ref().filter(|version| **version != "") {
            instance = instance.with_version(version).map_err(|error| error.to_string())?;
        }
        if let Some(zone) = &zone {
            instance = instance.with_zone(zone).map_err(|error| error.to_string())?;
        }
        instance = instance.with_all_metadata(pairs.clone()).map_err(|error| error.to_string())?;
        if alone {
            all.push(identified(instance, id)?);
            continue;
        }
        let protocol = instance.protocol().unwrap_or("tcp").to_owned();
        let taken = all.iter().any(|other| other.protocol() == Some(&protocol));
        let suffix = if taken { format!("{protocol}{at}") } else { protocol };
        all.push(instance.with_id(&sibling(id, &suffix)).map_err(|error| error.to_string())?);
    }
    Ok(all)
}

/// Whether it speaks a protocol, in the clear or over TLS.
fn speaks(instance: &Instance, wanted: &str) -> bool {
    instance.protocol().is_some_and(|spoken| spoken == wanted || spoken.strip_suffix('s') == Some(wanted))
}

/// `grpc://10.0.0.1:9000?isSecure=true`
fn one(service: &ServiceName, endpoint: &str) -> Read<Instance> {
    let (url, query) = endpoint.split_once('?').unwrap_or((endpoint, ""));
    let instance = bare::decode(service, url)?;
    let secure = query.split('&').any(|pair| pair.eq_ignore_ascii_case("isSecure=true"));
    match instance.protocol() {
        Some(plain @ ("grpc" | "http")) if secure => {
            let protocol = format!("{plain}s");
            instance.with_protocol(&protocol).map_err(|error| error.to_string())
        }
        _ => Ok(instance),
    }
}
