//! Kitex: `{"network":"tcp","address":"10.0.0.1:8888","weight":10,"tags":null}`.

use std::collections::BTreeMap;

use callsign_core::formats::{Own, bare, kitex, pairs};
use callsign_core::{Instance, ServiceName};
use serde::Serialize;

use super::Fields;

#[derive(Serialize)]
struct Kitex<'a> {
    network: &'a str,
    address: String,
    weight: u32,
    tags: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callsign: Option<Own>,
}

pub(super) fn encode(instance: &Instance) -> Option<Vec<u8>> {
    let mut own = Own::of(instance);
    // A weight of nothing is the one that Kitex cannot say.
    own.weight = own.weight.filter(|weight| *weight == 0);
    let kitex = Kitex {
        network: "tcp",
        address: instance.address().to_string(),
        weight: kitex::weight_of(instance),
        tags: (!instance.metadata().is_empty()).then(|| instance.metadata()),
        callsign: own.if_any(),
    };
    serde_json::to_vec(&kitex).ok()
}

pub(super) fn decode(service: &ServiceName, fields: Fields) -> Result<Instance, String> {
    let address = fields.address.ok_or("the value is JSON without \"address\"")?;
    if let Some(network) = fields.network.filter(|network| !network.is_empty() && !network.starts_with("tcp"))
    {
        return Err(format!("the network is {network:?}, and only tcp can be called from elsewhere"));
    }
    let weight = kitex::weight(fields.weight.as_ref());
    let mut instance = bare::decode(service, &address)?.with_weight(weight);
    if let Some(own) = fields.callsign {
        instance = own.apply(instance).map_err(|error| error.to_string())?;
    }
    instance.with_all_metadata(pairs(fields.tags)).map_err(|error| error.to_string())
}
