//! Entries of others: Spring Cloud, Netflix, fargo (Go kit and Kitex), Kratos.

use callsign_core::formats::{as_weight, is_ours_to_hold};
use callsign_core::{Address, Instance, ServiceName, State};

use super::entry::{Entry, Status};
use super::{Found, Taking, kratos};

pub(super) fn decode(name: &ServiceName, entry: &Entry, taking: &Taking) -> Result<Found, String> {
    let say = |error: callsign_core::Error| error.to_string();
    // What is secure is called so, whatever else is open.
    let secure = entry.secure_port.filter(|port| port.enabled);
    // One that is disabled is the port all the same: fargo disables all by default.
    let port = secure.or(entry.port).ok_or("it has no port")?;
    let number = u32::try_from(port.number).map_err(|_| bad_port(port.number))?;
    let address = Address::new(host(entry), number).map_err(say)?;
    let is_kratos = kratos::wrote(entry);
    let said = is_kratos.then(|| kratos::protocol(name, entry, &address)).flatten();
    let mut instance = Instance::new(name, address).and_then(|it| it.with_id(entry.key())).map_err(say)?;
    if let Some(protocol) = said.as_deref().or(secure.map(|_| "https")) {
        instance = instance.with_protocol(protocol).map_err(say)?;
    }
    if let Some(zone) = entry.meta("zone").filter(|zone| !zone.is_empty()) {
        instance = instance.with_zone(zone).map_err(say)?;
    }
    let version = ["version", "Version"].into_iter().find_map(|key| entry.meta(key));
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        instance = instance.with_version(version).map_err(say)?;
    }
    if let Some(weight) = entry.meta("weight").and_then(|weight| as_weight(&weight.into())) {
        instance = instance.with_weight(weight);
    }
    let kept = |key: &str| is_ours_to_hold(key) && !(is_kratos && kratos::is_its(key));
    let metadata = entry.metadata.iter().filter(|(key, _)| kept(key));
    instance =
        instance.with_all_metadata(metadata.map(|(key, value)| (key.clone(), value.clone()))).map_err(say)?;
    Ok(match entry.status {
        Status::Up => Found::Listed(instance),
        _ if taking.all => Found::Listed(instance.with_state(State::Down)),
        _ => Found::Away(instance.with_state(State::Down)),
    })
}

/// The host's name, as Spring Cloud's clients take it; its IP address, where the name is none: Kratos says the name of
/// the application there, Kitex a host with its port.
fn host(entry: &Entry) -> &str {
    let named = !entry.host_name.is_empty()
        && !entry.host_name.eq_ignore_ascii_case(&entry.app)
        && Address::new(&entry.host_name, 1).is_ok();
    if named || entry.ip_addr.is_empty() { &entry.host_name } else { &entry.ip_addr }
}

pub(super) fn bad_port(port: i64) -> String {
    format!("port {port}: a port is 1 to 65535")
}
