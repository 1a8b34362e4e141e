//! Entries of others, by the conventions of whoever writes such.

use callsign_core::{Address, Instance, ServiceName};

use super::entry::{Entry, Health, Service, Weights, is_of_consul};
use super::{Taking, bad_port, micro, own};

/// The instances that an entry which bears no mark stands for.
pub(super) fn decode_foreign(
    name: &ServiceName,
    entry: &Entry,
    taking: &Taking,
) -> Result<Vec<Instance>, String> {
    let (service, health) = (&entry.service, entry.health());
    if !taking.takes(health) {
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
        let port = entry.port().ok_or_else(|| bad_port(service.port))?;
        let protocol = match (service.meta("secure"), service.meta("protocol")) {
            (_, Some(protocol)) => Some(protocol),
            (Some("true"), None) => Some("https"),
            (Some("false"), None) => Some("http"),
            _ => None,
        };
        instances.push(foreign(name, service, &foreign_id(entry), entry.address(), port, protocol, health)?);
    }
    Ok(instances)
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
            let address: Address = authority.trim_end_matches('/').parse().ok()?;
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
    let tags = micro::read(service.tags.as_deref().unwrap_or_default())?;
    let version = service.tags.iter().flatten().find_map(|tag| tag.strip_prefix("version="));
    let version = version.or(tags.version.as_deref());
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        instance = instance.with_version(version).map_err(say)?;
    }
    let mut metadata = tags.metadata;
    metadata.extend(service.meta.iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
    let kept = |key: &str| key != "zone" && !key.is_empty() && !key.starts_with(Instance::RESERVED_PREFIX);
    metadata.retain(|key, _| kept(key));
    instance.with_all_metadata(metadata).map_err(say)
}
