//! Kitex: node `10.0.0.1:8888`, data `{"Weight":10,"Tags":{"zone":"z1"}}`. The address is the node's name.

use std::collections::BTreeMap;

use callsign_core::{Instance, InstanceId, ServiceName};
use serde::Serialize;

use super::own::Own;
use super::{Fields, as_weight, bare, identified, pairs};

/// Kitex' usual weight, which is 1 here, and what it takes a weight of nothing or less for.
const WEIGHT: u32 = 10;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kitex<'a> {
    weight: u32,
    tags: &'a BTreeMap<String, String>,
    #[serde(rename = "callsign", skip_serializing_if = "Option::is_none")]
    callsign: Option<Own>,
}

pub(super) fn encode(instance: &Instance) -> Option<Vec<u8>> {
    let own = Own::of(instance);
    let own = Own {
        // A weight of nothing is the one that Kitex cannot say.
        weight: own.weight.filter(|weight| *weight == 0),
        id: (instance.id().as_str() != instance.address().to_string()).then(|| instance.id().to_string()),
        ..own
    };
    let kitex = Kitex {
        weight: instance.weight().saturating_mul(WEIGHT),
        tags: instance.metadata(),
        callsign: own.if_any(),
    };
    serde_json::to_vec(&kitex).ok()
}

pub(super) fn decode(service: &ServiceName, name: &InstanceId, fields: Fields) -> Result<Instance, String> {
    let weight = fields.weight.as_ref().and_then(as_weight).filter(|weight| *weight > 0).unwrap_or(WEIGHT);
    // Rounded, and never to nothing.
    let weight = (weight.saturating_add(WEIGHT / 2) / WEIGHT).max(1);
    let mut instance = identified(bare::decode(service, name.as_str())?, name)?.with_weight(weight);
    if let Some(own) = fields.callsign {
        if let Some(id) = &own.id {
            instance = instance.with_id(id).map_err(|error| error.to_string())?;
        }
        instance = own.apply(instance).map_err(|error| error.to_string())?;
    }
    instance.with_all_metadata(pairs(fields.tags)).map_err(|error| error.to_string())
}
