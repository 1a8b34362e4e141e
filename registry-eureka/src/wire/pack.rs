//! Metadata of any keys and values, in what every client of Eureka can read: its servers write a key as the name of an XML
//! element, and one that is no such name would break the list for all who read XML.

use std::collections::BTreeMap;

use callsign_core::{Error, Result};

/// Where whatever does not fit is, as one JSON object.
const REST: &str = "callsign-metadata";

/// What is written of some pairs.
pub(super) fn pack(pairs: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    let (mut packed, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
        pairs.into_iter().partition(|(key, value)| fits(key, value));
    if !rest.is_empty() {
        let text = ascii(&rest)?;
        packed.insert(REST.to_owned(), text);
    }
    Ok(packed)
}

/// The pairs of which that was written.
pub(super) fn unpack(
    packed: &BTreeMap<String, String>,
) -> std::result::Result<BTreeMap<String, String>, String> {
    let mut pairs = packed.clone();
    if let Some(rest) = pairs.remove(REST) {
        let rest: BTreeMap<String, String> =
            serde_json::from_str(&rest).map_err(|error| format!("{REST}: {error}"))?;
        pairs.extend(rest);
    }
    Ok(pairs)
}

fn fits(key: &str, value: &str) -> bool {
    let begins = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_name = begins && key.chars().all(known) && !key.to_ascii_lowercase().starts_with("xml");
    is_name && key != REST && value.chars().all(is_xml)
}

/// What may stand in XML 1.0. A carriage return may, and is another character once it is read.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// JSON of which no character is one that XML has no place for.
fn ascii(pairs: &BTreeMap<String, String>) -> Result<String> {
    let text = serde_json::to_string(pairs)
        .map_err(|error| Error::invalid("metadata cannot be written as JSON").with_source(error))?;
    let mut escaped = String::with_capacity(text.len());
    let mut units = [0; 2];
    for c in text.chars() {
        if is_xml(c) {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(escaped)
}
