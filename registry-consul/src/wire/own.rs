//! Our own entries, which bear our mark: who registered them, and when.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use callsign_core::{Address, Instance, Result, ServiceName, State};

use super::entry::{Service, Tagged, Weights};
use super::pack::{pack, unpack};
use super::{Format, Registration, service_id};

/// The mark: which registration wrote the entry. Those of one id are ordered by when they were made.
pub(crate) const INCARNATION: &str = "callsign-incarnation";
/// What makes an entry another than the same one before.
pub(crate) const AGAIN: &str = "callsign-again";
const ID: &str = "callsign-id";
const PROTOCOL: &str = "callsign-protocol";
const STATE: &str = "callsign-state";
const VERSION: &str = "callsign-version";
const WEIGHT: &str = "callsign-weight";
const ZONE: &str = "callsign-zone";
/// What stands among the metadata for Kratos alone.
const ADDED: &str = "callsign-added";

/// A mark that is younger than all that were made before on this machine, and nobody else's.
pub(crate) fn new_incarnation() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:014x}-{:08x}", since.as_micros(), fastrand::u32(..))
}

/// Whether the first was made before the other.
pub(crate) fn is_older(incarnation: &str, other: &str) -> bool {
    incarnation < other
}

pub(super) fn at(name: &ServiceName, host: &str, port: u16) -> Result<Instance> {
    Instance::new(name, Address::new(host, u32::from(port))?)
}

pub(crate) fn encode_own(format: Format, instance: &Instance, incarnation: &str) -> Result<Registration> {
    let (service, id, address) = (instance.service(), instance.id(), instance.address());
    let mut meta =
        BTreeMap::from([(INCARNATION.to_owned(), incarnation.to_owned()), (ID.to_owned(), id.to_string())]);
    let mut say = |key: &str, value: Option<&str>| {
        meta.extend(value.map(|value| (key.to_owned(), value.to_owned())));
    };
    say(PROTOCOL, instance.protocol());
    say(STATE, (instance.state() != State::Up).then(|| instance.state().as_str()));
    say(VERSION, instance.version());
    say(ZONE, instance.zone());
    // Consul's own begin at 1 and end before ours do.
    let weight = i64::from(instance.weight()).clamp(1, 65_535);
    if weight != i64::from(instance.weight()) {
        say(WEIGHT, Some(&instance.weight().to_string()));
    }
    let mut tags = Vec::new();
    let mut tagged_addresses = BTreeMap::new();
    let endpoint = |scheme: &str, secure: bool| Tagged {
        address: format!("{scheme}://{address}{}", if secure { "?isSecure=true" } else { "" }),
        port: u32::from(address.port()),
    };
    match (instance.protocol(), format) {
        // Kratos reads nothing else.
        (Some("grpc"), _) | (None, Format::Kratos) => {
            tagged_addresses.insert("grpc".to_owned(), endpoint("grpc", false));
        }
        (Some("grpcs"), _) => {
            tagged_addresses.insert("grpc".to_owned(), endpoint("grpc", true));
        }
        (Some(other), Format::Kratos) => {
            let (scheme, secure) = if other == "https" { ("http", true) } else { (other, false) };
            tagged_addresses.insert(scheme.to_owned(), endpoint(scheme, secure));
        }
        _ => {}
    }
    if format == Format::Kratos {
        tags.push(format!("version={}", instance.version().unwrap_or_default()));
        if instance.weight() != 1 && !instance.metadata().contains_key("weight") {
            meta.insert("weight".to_owned(), instance.weight().to_string());
            meta.insert(ADDED.to_owned(), "weight".to_owned());
        }
    }
    pack(instance.metadata(), &mut meta)?;
    Ok(Registration {
        id: service_id(service, id),
        name: service.to_string(),
        address: address.host().to_owned(),
        port: address.port(),
        tags,
        meta,
        tagged_addresses,
        weights: Weights { passing: weight, warning: 1 },
        enable_tag_override: false,
    })
}

pub(crate) fn decode_own(
    name: &ServiceName,
    service: &Service,
    host: &str,
    port: u16,
) -> std::result::Result<Instance, String> {
    let say = |error: callsign_core::Error| error.to_string();
    let mut instance = at(name, host, port).map_err(say)?;
    if let Some(id) = service.meta(ID) {
        instance = instance.with_id(id).map_err(say)?;
    }
    if let Some(protocol) = service.meta(PROTOCOL) {
        instance = instance.with_protocol(protocol).map_err(say)?;
    }
    if let Some(state) = service.meta(STATE) {
        instance = instance.with_state(state.parse().map_err(say)?);
    }
    if let Some(version) = service.meta(VERSION) {
        instance = instance.with_version(version).map_err(say)?;
    }
    if let Some(zone) = service.meta(ZONE) {
        instance = instance.with_zone(zone).map_err(say)?;
    }
    let passing = service.weights.map_or(1, |weights| weights.passing);
    let stated = service.meta(WEIGHT).and_then(|weight| weight.parse().ok());
    let weight = stated.unwrap_or_else(|| u32::try_from(passing.max(0)).unwrap_or(u32::MAX));
    instance = instance.with_weight(weight);
    let mut metadata = unpack(service.meta.as_ref().unwrap_or(&BTreeMap::new()))?;
    if let Some(added) = service.meta(ADDED) {
        metadata.remove(added);
    }
    instance.with_all_metadata(metadata).map_err(say)
}
