//! The bytes of an entry: an instance to JSON and back. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, InstanceId, State};

/// The version of the format. A reader refuses another one; keys that it does not know are no other version.
const FORMAT: u32 = 1;
/// The most bytes of an entry: all the metadata there may be, every character of it escaped, fits in.
pub(super) const MAX_LEN: u64 = 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Entry {
    format: u32,
    service: String,
    id: String,
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(default = "up")]
    state: String,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}

fn up() -> String {
    State::Up.as_str().to_owned()
}

fn one() -> u32 {
    1
}

/// The file's content.
pub(super) fn encode(instance: &Instance) -> Result<Vec<u8>> {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let entry = Entry {
        format: FORMAT,
        service: instance.service().as_str().to_owned(),
        id: instance.id().as_str().to_owned(),
        address: instance.address().to_string(),
        protocol: text(instance.protocol()),
        state: instance.state().as_str().to_owned(),
        weight: instance.weight(),
        zone: text(instance.zone()),
        version: text(instance.version()),
        metadata: instance.metadata().clone(),
    };
    let mut bytes = serde_json::to_vec_pretty(&entry).map_err(|error| {
        Error::new(ErrorKind::Other, "an instance cannot be written as JSON").with_source(error)
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The instance in a file.
pub(super) fn decode(bytes: &[u8]) -> Result<Instance> {
    let malformed = |error: serde_json::Error| {
        Error::new(ErrorKind::Malformed, "an entry is JSON with format, service, id and address")
            .with_source(error)
    };
    let Version { format } = serde_json::from_slice(bytes).map_err(malformed)?;
    if format != FORMAT {
        return Err(Error::new(
            ErrorKind::Malformed,
            format!("an entry has format {format}, and this version reads format {FORMAT}: update it"),
        ));
    }
    let entry: Entry = serde_json::from_slice(bytes).map_err(malformed)?;
    build(entry).map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()))
}

fn build(entry: Entry) -> Result<Instance> {
    let mut instance = Instance::new(&*entry.service, &*entry.address)?
        .with_id(InstanceId::new(&entry.id)?.as_str())?
        .with_state(entry.state.parse()?)
        .with_weight(entry.weight);
    if let Some(protocol) = &entry.protocol {
        instance = instance.with_protocol(protocol)?;
    }
    if let Some(zone) = &entry.zone {
        instance = instance.with_zone(zone)?;
    }
    if let Some(version) = &entry.version {
        instance = instance.with_version(version)?;
    }
    entry.metadata.into_iter().try_fold(instance, |instance, (key, value)| instance.with_metadata(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{
  "format": 1,
  "service": "book",
  "id": "copy 1",
  "address": "[::1]:50051",
  "protocol": "grpc",
  "state": "draining",
  "weight": 0,
  "zone": "eu-1",
  "version": "1.2.3",
  "metadata": {
    "team": "bücher \"a\"\n"
  }
}
"#;

    fn full() -> Instance {
        Instance::new("book", "[::1]:50051")
            .and_then(|instance| instance.with_id("copy 1"))
            .and_then(|instance| instance.with_protocol("grpc"))
            .and_then(|instance| instance.with_zone("eu-1"))
            .and_then(|instance| instance.with_version("1.2.3"))
            .and_then(|instance| instance.with_metadata("team", "bücher \"a\"\n"))
            .unwrap()
            .with_state(State::Draining)
            .with_weight(0)
    }

    #[test]
    fn golden() {
        assert_eq!(String::from_utf8(encode(&full()).unwrap()).unwrap(), FULL);
        assert_eq!(decode(FULL.as_bytes()).unwrap(), full());
        let plain = Instance::new("book", "127.0.0.1:50051").unwrap();
        let bytes = encode(&plain).unwrap();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            "{\n  \"format\": 1,\n  \"service\": \"book\",\n  \"id\": \"127.0.0.1:50051\",\n  \
             \"address\": \"127.0.0.1:50051\",\n  \"state\": \"up\",\n  \"weight\": 1\n}\n"
        );
        assert_eq!(decode(&bytes).unwrap(), plain);
    }

    #[test]
    fn later_keys_are_no_error() {
        let text = r#"{"format":1,"service":"book","id":"x","address":"h:1","later":[1]}"#;
        assert_eq!(decode(text.as_bytes()).unwrap().id().as_str(), "x");
    }

    #[test]
    fn largest_fits() {
        let instance = full().with_metadata("k", "\u{1}".repeat(Instance::MAX_METADATA - 64)).unwrap();
        let bytes = encode(&instance).unwrap();
        assert!(bytes.len() as u64 <= MAX_LEN, "{}", bytes.len());
        assert_eq!(decode(&bytes).unwrap(), instance);
    }

    #[test]
    fn what_is_refused_is_named() {
        for (text, says) in [
            ("", "JSON"),
            ("null", "JSON"),
            ("{\"format\":1", "JSON"),
            (r#"{"service":"book","id":"x","address":"h:1"}"#, "JSON"),
            (r#"{"format":2}"#, "format 2"),
            (r#"{"format":1,"service":"a/b","id":"x","address":"h:1"}"#, "'/'"),
            (r#"{"format":1,"service":"book","id":"x","address":"h:0"}"#, "port 0"),
            (r#"{"format":1,"service":"book","id":"x","address":"h:70000"}"#, "70000"),
            (r#"{"format":1,"service":"book","id":"","address":"h:1"}"#, "0 bytes"),
            (r#"{"format":1,"service":"book","id":"x","address":"h:1","state":"off"}"#, "\"off\""),
            (r#"{"format":1,"service":"book","id":"x","address":"h:1","weight":-1}"#, "JSON"),
        ] {
            let error = decode(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed);
            assert!(error.to_string().contains(says), "{text}: {error}");
        }
        assert!(decode(b"\xff\xfe").is_err());
    }
}
