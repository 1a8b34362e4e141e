//! Metadata of any size and any keys, in what Consul takes: 64 pairs, keys of 128 letters, digits, `_` and `-`, values
//! of 512 bytes.
//!
//! What fits is written as it is, for others to read. The rest is one JSON object, cut into pieces.

use std::collections::BTreeMap;

use callsign_core::{Error, Result};

/// One is kept for whoever writes an entry again.
const PAIRS: usize = 64 - 1;
const KEY: usize = 128;
const VALUE: usize = 512;
/// The keys of the pieces, but for their numbers.
const PIECE: &str = "callsign-metadata-";

/// Adds the metadata of an instance to the pairs that there are.
pub(super) fn pack(metadata: &BTreeMap<String, String>, pairs: &mut BTreeMap<String, String>) -> Result<()> {
    let mut rest = BTreeMap::new();
    for (key, value) in metadata {
        if fits(key, value) {
            pairs.insert(key.clone(), value.clone());
        } else {
            rest.insert(key, value);
        }
    }
    // A pair of its own for each leaves no room where there are many: then all of them go into the pieces.
    if pairs.len() + pieces(&rest)?.len() > PAIRS {
        pairs.retain(|key, _| !metadata.contains_key(key));
        rest = metadata.iter().collect();
    }
    let pieces = pieces(&rest)?;
    if pairs.len() + pieces.len() > PAIRS {
        let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        return Err(Error::invalid(format!(
            "metadata of {bytes} bytes: Consul takes 64 pairs with values of {VALUE} bytes"
        )));
    }
    pairs.extend(pieces.into_iter().enumerate().map(|(n, piece)| (format!("{PIECE}{n}"), piece)));
    Ok(())
}

/// The metadata of an instance, from all pairs of an entry of ours.
pub(super) fn unpack(
    pairs: &BTreeMap<String, String>,
) -> std::result::Result<BTreeMap<String, String>, String> {
    let mut text = String::new();
    for n in 0.. {
        match pairs.get(&format!("{PIECE}{n}")) {
            Some(piece) => text.push_str(piece),
            None => break,
        }
    }
    let mut metadata: BTreeMap<String, String> = match text.as_str() {
        "" => BTreeMap::new(),
        text => serde_json::from_str(text).map_err(|error| format!("{PIECE}0 and on: {error}"))?,
    };
    let own = |key: &str| key.starts_with(callsign_core::Instance::RESERVED_PREFIX);
    metadata
        .extend(pairs.iter().filter(|(key, _)| !own(key)).map(|(key, value)| (key.clone(), value.clone())));
    Ok(metadata)
}

fn fits(key: &str, value: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    key.len() <= KEY && key.bytes().all(known) && value.len() <= VALUE
}

fn pieces(rest: &BTreeMap<&String, &String>) -> Result<Vec<String>> {
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let text = serde_json::to_string(rest)
        .map_err(|error| Error::invalid("metadata cannot be written as JSON").with_source(error))?;
    let mut pieces = Vec::new();
    let mut left = text.as_str();
    while !left.is_empty() {
        let mut end = left.len().min(VALUE);
        while !left.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, next) = left.split_at(end);
        pieces.push(piece.to_owned());
        left = next;
    }
    Ok(pieces)
}
