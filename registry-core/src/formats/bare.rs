//! Bare addresses: Go kit, and go-zero in etcd.

use super::Read;
use crate::model::{Instance, ServiceName};

/// `10.0.0.1:8080`
#[must_use]
pub fn encode(instance: &Instance) -> Vec<u8> {
    instance.address().to_string().into_bytes()
}

/// `10.0.0.1:8080` or `http://10.0.0.1:8080`.
///
/// # Errors
/// It is neither.
pub fn decode(service: &ServiceName, text: &str) -> Read<Instance> {
    let Some((protocol, rest)) = text.split_once("://") else {
        return Instance::new(service, text).map_err(|error| error.to_string());
    };
    let address = rest.strip_suffix('/').unwrap_or(rest);
    Instance::new(service, address)
        .and_then(|instance| instance.with_protocol(protocol))
        .map_err(|error| error.to_string())
}
