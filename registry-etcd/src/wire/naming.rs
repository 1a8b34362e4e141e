//! gRPC-Go's naming in etcd.

use std::collections::BTreeMap;

use callsign_core::formats::{Own, as_text, bare, pairs};
use callsign_core::{Instance, ServiceName};
use serde::Serialize;
use serde_json::Value;

use super::Fields;

/// The value as it is written: this order, no spaces.
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

pub(super) fn encode(instance: &Instance) -> Option<Vec<u8>> {
    let metadata = (!instance.metadata().is_empty()).then(|| instance.metadata());
    let addr = instance.address().to_string();
    let naming = Naming { op: 0, addr, metadata, callsign: Own::of(instance).if_any() };
    // Strings and numbers in structs: nothing that JSON could not hold.
    serde_json::to_vec(&naming).ok()
}

pub(super) fn decode(service: &ServiceName, fields: Fields) -> Result<Instance, String> {
    let addr = fields.addr.ok_or("the value is JSON without \"Addr\"")?;
    let mut instance = bare::decode(service, &addr)?;
    if let Some(own) = fields.callsign {
        instance = own.apply(instance).map_err(|error| error.to_string())?;
    }
    let pairs = match fields.naming_metadata {
        object @ (None | Some(Value::Null | Value::Object(_))) => pairs(object),
        // Go's type is `any`: what is no object has no keys of its own.
        Some(other) => vec![("metadata".to_owned(), as_text(other))],
    };
    instance.with_all_metadata(pairs).map_err(|error| error.to_string())
}
