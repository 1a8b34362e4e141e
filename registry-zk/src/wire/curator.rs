//! Curator's `ServiceInstance`, with the payload of Spring Cloud, or none. Spring fails for the whole service where a
//! payload is any other: what it has no place for stands in an object of our own beside it, which all readers ignore.

use std::collections::BTreeMap;

use callsign_core::formats::{Own, as_weight, pairs};
use callsign_core::{Address, Instance, ServiceName, State};
use serde::Serialize;
use serde_json::Value;

use super::Fields;

const CLASS: &str = "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance";
/// What Spring calls the state, among the metadata.
const STATUS: &str = "instance_status";
const UP: &str = "UP";
const OUT: &str = "OUT_OF_SERVICE";
/// Where Spring's load balancer looks for the zone.
const ZONE: &str = "zone";
const WEIGHT: &str = "weight";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceInstance<'a> {
    name: &'a str,
    id: &'a str,
    address: &'a str,
    port: u16,
    ssl_port: Option<u16>,
    payload: Option<Payload<'a>>,
    #[serde(rename = "registrationTimeUTC")]
    registration_time_utc: u64,
    service_type: &'a str,
    uri_spec: UriSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    callsign: Option<Own>,
}

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "@class")]
    class: &'a str,
    /// The application, and not the instance.
    id: &'a str,
    name: &'a str,
    metadata: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct UriSpec {
    parts: [Part; 5],
}

#[derive(Serialize)]
struct Part {
    value: &'static str,
    variable: bool,
}

/// `{scheme}://{address}:{port}`
const URI: UriSpec = UriSpec {
    parts: [
        Part { value: "scheme", variable: true },
        Part { value: "://", variable: false },
        Part { value: "address", variable: true },
        Part { value: ":", variable: false },
        Part { value: "port", variable: true },
    ],
};

pub(super) fn encode(instance: &Instance, since: u64) -> Option<Vec<u8>> {
    let mut metadata: BTreeMap<&str, &str> =
        instance.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut own = Own::of(instance);
    let weight = instance.weight().to_string();
    let status = if instance.state() == State::Up { UP } else { OUT };
    let says = [
        (ZONE, instance.zone()),
        (WEIGHT, own.weight.map(|_| weight.as_str())),
        (STATUS, (own.state.is_some() || !metadata.is_empty()).then_some(status)),
    ];
    for (key, value) in says {
        if let Some(value) = value
            && !metadata.contains_key(key)
        {
            metadata.insert(key, value);
            own.added.push(key.to_owned());
        }
    }
    let name = instance.service().as_str();
    let entry = ServiceInstance {
        name,
        id: instance.id().as_str(),
        address: instance.address().host(),
        port: instance.address().port(),
        ssl_port: None,
        payload: (!metadata.is_empty()).then_some(Payload { class: CLASS, id: name, name, metadata }),
        registration_time_utc: since,
        service_type: "DYNAMIC",
        uri_spec: URI,
        callsign: own.if_any(),
    };
    serde_json::to_vec(&entry).ok()
}

pub(super) fn decode(service: &ServiceName, fields: Fields) -> Result<Instance, String> {
    let say = |error: callsign_core::Error| error.to_string();
    let Some(Value::String(host)) = &fields.address else {
        return Err("\"address\" is no text".to_owned());
    };
    let secure = port(fields.ssl_port.as_ref(), "sslPort")?;
    let port = match secure {
        // As Spring does.
        Some(secure) => secure,
        None => port(fields.port.as_ref(), "port")?.ok_or("there is neither \"port\" nor \"sslPort\"")?,
    };
    let address = Address::new(host, port).map_err(say)?;
    let mut instance = Instance::new(service, address).map_err(say)?;
    let payload = match fields.payload {
        Some(Value::Object(mut payload)) => payload.remove("metadata"),
        _ => None,
    };
    let mut metadata: BTreeMap<String, String> = pairs(payload).into_iter().collect();
    if let Some(own) = fields.callsign {
        metadata.retain(|key, _| !own.added.contains(key));
        return own.apply(instance).and_then(|instance| instance.with_all_metadata(metadata)).map_err(say);
    }
    if secure.is_some() {
        instance = instance.with_protocol("https").map_err(say)?;
    }
    if metadata.remove(STATUS).is_some_and(|status| status != UP)
        || fields.enabled == Some(Value::Bool(false))
    {
        instance = instance.with_state(State::Down);
    }
    // What is no zone to us stays what it is to them.
    if let Some(zoned) = metadata.get(ZONE).and_then(|zone| instance.clone().with_zone(zone).ok()) {
        instance = zoned;
        metadata.remove(ZONE);
    }
    let weight = metadata.get(WEIGHT).and_then(|weight| as_weight(&Value::String(weight.clone())));
    if let Some(weight) = weight {
        instance = instance.with_weight(weight);
        metadata.remove(WEIGHT);
    }
    instance.with_all_metadata(metadata).map_err(say)
}

/// A port, if there is one: who has none of a kind may say so with -1, as Druid does, or 0. Text is read as Curator reads it.
fn port(value: Option<&Value>, name: &str) -> Result<Option<u32>, String> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_i64(),
    };
    let none = || format!("{name:?} is {}, and no port", value.unwrap_or(&Value::Null));
    match number.ok_or_else(none)? {
        ..=0 => Ok(None),
        port => u32::try_from(port).map(Some).map_err(|_| none()),
    }
}
