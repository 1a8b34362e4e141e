//! Bare addresses: Go kit.

use callsign_core::{Instance, ServiceName};

pub(super) fn encode(instance: &Instance) -> Vec<u8> {
    instance.address().to_string().into_bytes()
}

/// `1.2.3.4:8080` or `http://1.2.3.4:8080`.
pub(super) fn decode(service: &ServiceName, text: &str) -> Result<Instance, String> {
    let said = |error: callsign_core::Error| error.to_string();
    let Some((protocol, rest)) = text.split_once("://") else {
        return Instance::new(service, text).map_err(said);
    };
    let address = rest.strip_suffix('/').unwrap_or(rest);
    Instance::new(service, address).and_then(|instance| instance.with_protocol(protocol)).map_err(said)
}
