//! Kitex: node `10.0.0.1:8888`, data `{"Weight":10,"Tags":{"zone":"z1"}}`. The address is the node's name.

use std::collections::BTreeMap;

use callsign_core::formats::{Own, bare, identified, kitex, pairs};
use callsign_core::{Instance, InstanceId, ServiceName};
use serde::Serialize;

use super::Fields;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kitex<'a> {
    weight: u32,
    tags: &'a BTreeMap<String, String>,
    #[serde(rename = "callsign", skip_serializing_if = "Option::is_none")]
    callsign: Option<Own>,
}

pub(super) fn encode(instance: &Instance) -> Option<Vec<u8>> {
    let mut own = Own::of(instance);
    // A weight of nothing is the one that Kitex cannot say.
    own.weight = own.weight.filter(|weight| *weight == 0);
    own.id = (instance.id().as_str() != instance.address().to_string()).then(|| instance.id().to_string());
    let kitex =
        Kitex { weight: kitex::weight_of(instance), tags: instance.metadata(), callsign: own.if_any() };
    serde_json::to_vec(&kitex).ok()
}

pub(super) fn decode(service: &ServiceName, name: &InstanceId, fields: Fields) -> Result<Instance, String> {
    let weight = kitex::weight(fields.weight.as_ref());
    let mut instance = identified(bare::decode(service, name.as_str())?, name)?.with_weight(weight);
    if let Some(own) = fields.callsign {
        if let Some(id) = &own.id {
            instance = instance.with_id(id).map_err(|error| error.to_string())?;
        }
        instance = own.apply(instance).map_err(|error| error.to_string())?;
    }
    instance.with_all_metadata(pairs(fields.tags)).map_err(|error| error.to_string())
}
