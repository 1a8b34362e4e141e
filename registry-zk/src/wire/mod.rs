//! Instances as the data of nodes, and back. Pure: the entries are [`encode`] and [`decode`].
//!
//! What is written is one [`Format`]; what is read is recognised by its content. Parsers ignore fields that they do not
//! know, and take `null` for absent.

mod curator;
mod kitex;

use callsign_core::formats::{Own, bare, identified, kratos};
use callsign_core::{Instance, InstanceId, ServiceName, State};
use serde::Deserialize;
use serde_json::Value;

/// How an instance is written: the bytes of which framework.
///
/// In all but [`Curator`](Self::Curator) an instance that drains or is down is withdrawn, as the readers of these formats
/// know no state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Curator's service discovery, as Spring Cloud writes it: node `/services/NAME/ID`, a JSON object with `address` and
    /// `port`. Carries everything; the default.
    #[default]
    Curator,
    /// Go kit: node `/services/NAME/ID`, the bare address. Carries the address alone.
    GoKit,
    /// Kratos: node `/microservices/NAME/ID`, a JSON object with `endpoints`.
    Kratos,
    /// Kitex: node `/NAME/ADDRESS`, a JSON object with `Weight` and `Tags`.
    Kitex,
}

impl Format {
    /// Every format, by the name that URLs have for it.
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("curator", Self::Curator),
        ("gokit", Self::GoKit),
        ("kratos", Self::Kratos),
        ("kitex", Self::Kitex),
    ];

    /// The node below which services are where nobody says otherwise.
    pub(crate) fn default_base(self) -> &'static str {
        match self {
            Self::Curator | Self::GoKit => "/services",
            Self::Kratos => "/microservices",
            Self::Kitex => "/",
        }
    }
}

impl Format {
    /// Whether who drains or is down can be written as that.
    fn knows_states(self) -> bool {
        match self {
            Self::Curator => true,
            Self::GoKit | Self::Kratos | Self::Kitex => false,
        }
    }
}

/// The largest value that is read; ZooKeeper itself refuses requests above 1 MiB by default.
pub(crate) const MAX_VALUE: usize = 512 * 1024;

/// An instance's data, which was registered at a time in milliseconds; `None` where the format can only say that it is
/// not there.
pub(crate) fn encode(format: Format, instance: &Instance, since: u64) -> Option<Vec<u8>> {
    if !format.knows_states() && instance.state() != State::Up {
        return None;
    }
    match format {
        Format::Curator => curator::encode(instance, since),
        Format::GoKit => Some(bare::encode(instance)),
        Format::Kratos => kratos::encode(instance),
        Format::Kitex => kitex::encode(instance),
    }
}

/// Whether a format has no place for some of what an instance says.
pub(crate) fn leaves_out(format: Format, instance: &Instance) -> bool {
    let says_more = instance.weight() != 1
        || instance.protocol().is_some()
        || instance.zone().is_some()
        || instance.version().is_some()
        || !instance.metadata().is_empty();
    match format {
        Format::GoKit => says_more,
        // Where there is no other place there is `Own`.
        Format::Curator | Format::Kratos | Format::Kitex => false,
    }
}

/// What any of the formats that are JSON objects may have. Values where the frameworks' types are not the only ones that
/// are met.
#[derive(Deserialize)]
struct Fields {
    address: Option<Value>,
    port: Option<Value>,
    #[serde(rename = "sslPort")]
    ssl_port: Option<Value>,
    payload: Option<Value>,
    enabled: Option<Value>,
    endpoints: Option<Value>,
    version: Option<Value>,
    metadata: Option<Value>,
    #[serde(rename = "Weight")]
    weight: Option<Value>,
    #[serde(rename = "Tags")]
    tags: Option<Value>,
    callsign: Option<Own>,
}

/// The instances that a node stands for, one as a rule, or why it cannot be understood. Accepts the data of any format.
/// Of one that lists endpoints, those for `protocol` alone count, where one is given.
pub(crate) fn decode(
    service: &ServiceName,
    id: &InstanceId,
    value: &[u8],
    protocol: Option<&str>,
) -> Result<Vec<Instance>, String> {
    if value.len() > MAX_VALUE {
        return Err(format!("the data has {} bytes, more than {MAX_VALUE}", value.len()));
    }
    let text = std::str::from_utf8(value).map_err(|_| "the data is not UTF-8".to_owned())?.trim();
    if !text.starts_with('{') {
        return Ok(vec![identified(bare::decode(service, text)?, id)?]);
    }
    let fields: Fields =
        serde_json::from_str(text).map_err(|error| format!("the data is no such JSON: {error}"))?;
    if let Some(Value::Array(endpoints)) = fields.endpoints {
        let Fields { version, metadata, callsign, .. } = fields;
        return kratos::decode(
            service,
            id,
            kratos::Fields { endpoints, version, metadata, callsign },
            protocol,
        );
    }
    if fields.address.is_some() {
        return Ok(vec![identified(curator::decode(service, fields)?, id)?]);
    }
    if fields.weight.is_some() || fields.tags.is_some() {
        return Ok(vec![kitex::decode(service, id, fields)?]);
    }
    Err("the data is JSON of no known format: Curator has \"address\", Kratos \"endpoints\", Kitex \"Weight\" and \
         \"Tags\""
        .to_owned())
}

#[cfg(test)]
mod tests;
