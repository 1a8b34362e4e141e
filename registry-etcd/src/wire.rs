//! Instances as values of etcd, and back. Pure: the entries are [`encode`] and [`decode`].
//!
//! What is written is one [`Format`]; what is read is recognised by its content. Parsers ignore fields that
//! they do not know, and take `null` for absent.

mod gomicro;
mod kitex;
mod naming;

use callsign_core::formats::{Own, bare, identified, kratos};
use callsign_core::{Instance, InstanceId, ServiceName, State};
use serde::Deserialize;
use serde_json::Value;

/// How an instance is written: the bytes of which framework.
///
/// In all but [`Grpc`](Self::Grpc) an instance that drains or is down is withdrawn, as the readers of these formats
/// know no state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// gRPC-Go's naming in etcd: key `services/NAME/ID`, value `{"Op":0,"Addr":"10.0.0.1:9000","Metadata":null}`.
    /// Carries everything; the default.
    #[default]
    Grpc,
    /// Go kit: key `/services/NAME/ID`, value the bare address. Carries the address alone.
    GoKit,
    /// Kratos: key `/microservices/NAME/ID`, a JSON object with `endpoints`.
    Kratos,
    /// Kitex: key `kitex/registry-etcd/NAME/ID`, a JSON object with `network` and `address`.
    Kitex,
    /// go-micro: key `/micro/registry/NAME/ID`, a JSON object with `nodes`.
    GoMicro,
    /// go-zero: key `NAME/ID`, value the bare address. Carries the address alone.
    GoZero,
}

impl Format {
    /// Every format, by the name that URLs have for it.
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("grpc", Self::Grpc),
        ("gokit", Self::GoKit),
        ("kratos", Self::Kratos),
        ("kitex", Self::Kitex),
        ("gomicro", Self::GoMicro),
        ("gozero", Self::GoZero),
    ];

    /// The prefix of keys where nobody says otherwise, without slashes around it.
    pub(crate) fn default_prefix(self) -> &'static str {
        match self {
            Self::Grpc | Self::GoKit => "services",
            Self::Kratos => "microservices",
            Self::Kitex => "kitex/registry-etcd",
            Self::GoMicro => "micro/registry",
            Self::GoZero => "",
        }
    }

    /// Whether who drains or is down can be written as that.
    fn knows_states(self) -> bool {
        match self {
            Self::Grpc => true,
            Self::GoKit | Self::Kratos | Self::Kitex | Self::GoMicro | Self::GoZero => false,
        }
    }

    /// Whether its keys begin with a slash.
    pub(crate) fn has_slash(self) -> bool {
        match self {
            Self::GoKit | Self::Kratos | Self::GoMicro => true,
            Self::Grpc | Self::Kitex | Self::GoZero => false,
        }
    }

    /// What its own framework puts before the name of a service.
    pub(crate) fn default_root(self) -> String {
        match (self.default_prefix(), self.has_slash()) {
            ("", _) => String::new(),
            (prefix, true) => format!("/{prefix}/"),
            (prefix, false) => format!("{prefix}/"),
        }
    }
}

/// The largest value that is read; etcd itself refuses requests above 1.5 MiB by default.
pub(crate) const MAX_VALUE: usize = 1024 * 1024;

/// An instance's value; `None` where the format can only say that it is not there.
pub(crate) fn encode(format: Format, instance: &Instance) -> Option<Vec<u8>> {
    if !format.knows_states() && instance.state() != State::Up {
        return None;
    }
    match format {
        Format::Grpc => naming::encode(instance),
        Format::GoKit | Format::GoZero => Some(bare::encode(instance)),
        Format::Kratos => kratos::encode(instance),
        Format::Kitex => kitex::encode(instance),
        Format::GoMicro => gomicro::encode(instance),
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
        Format::GoKit | Format::GoZero => says_more,
        // Where there is no other place there is `Own`.
        Format::Grpc | Format::Kratos | Format::Kitex | Format::GoMicro => false,
    }
}

/// What any of the formats that are JSON objects may have. Values where the frameworks' types are not the only ones
/// that are met.
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "Addr")]
    addr: Option<String>,
    #[serde(rename = "Metadata")]
    naming_metadata: Option<Value>,
    address: Option<String>,
    network: Option<String>,
    weight: Option<Value>,
    tags: Option<Value>,
    endpoints: Option<Value>,
    nodes: Option<Value>,
    version: Option<Value>,
    metadata: Option<Value>,
    callsign: Option<Own>,
}

/// The instances that an entry stands for, one as a rule, or why it cannot be understood. Accepts the value of any
/// format. Of an entry that lists endpoints, those for `protocol` alone count, where one is given.
pub(crate) fn decode(
    service: &ServiceName,
    id: &InstanceId,
    value: &[u8],
    protocol: Option<&str>,
) -> Result<Vec<Instance>, String> {
    if value.len() > MAX_VALUE {
        return Err(format!("the value has {} bytes, more than {MAX_VALUE}", value.len()));
    }
    let text = std::str::from_utf8(value).map_err(|_| "the value is not UTF-8".to_owned())?.trim();
    if !text.starts_with('{') {
        return Ok(vec![identified(bare::decode(service, text)?, id)?]);
    }
    let fields: Fields =
        serde_json::from_str(text).map_err(|error| format!("the value is no such JSON: {error}"))?;
    if fields.addr.is_some() {
        return Ok(vec![identified(naming::decode(service, fields)?, id)?]);
    }
    if matches!(fields.nodes, Some(Value::Array(_))) {
        return gomicro::decode(service, id, fields);
    }
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
        return Ok(vec![identified(kitex::decode(service, fields)?, id)?]);
    }
    Err("the value is JSON of no known format: gRPC's naming has \"Addr\", Kratos \"endpoints\", Kitex \"address\", \
         go-micro \"nodes\""
        .to_owned())
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
