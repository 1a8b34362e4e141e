//! What other frameworks write is much the same in every registry: the pieces of which backends make their formats.
//!
//! All of it is pure. A reason why something cannot be read is text for whoever wrote the entry, as it names no
//! registry: [`Source::skipped`](crate::Source::skipped) counts such entries.

pub mod bare;
pub mod kitex;
pub mod kratos;
mod own;

use serde_json::Value;

use crate::model::{Instance, InstanceId};

pub use own::Own;

/// What a piece of an entry is, or why it cannot be read.
pub type Read<T> = std::result::Result<T, String>;

/// The instance with the id that its entry has.
///
/// # Errors
/// It cannot be an id: see [`InstanceId::new`].
pub fn identified(instance: Instance, id: &InstanceId) -> Read<Instance> {
    instance.with_id(id.as_str()).map_err(|error| error.to_string())
}

/// How an instance is called that shares its entry with others: by the entry's id and what tells it from them.
#[must_use]
pub fn sibling(id: &InstanceId, protocol: &str) -> String {
    format!("{id}@{protocol}")
}

/// What metadata of JSON holds, as text; nothing if it is no object. Keys that the model has no room for are left out, as
/// one of them is no reason to lose an instance.
#[must_use]
pub fn pairs(metadata: Option<Value>) -> Vec<(String, String)> {
    match metadata {
        Some(Value::Object(pairs)) => pairs
            .into_iter()
            .filter(|(key, value)| !value.is_null() && is_ours_to_hold(key))
            .map(|(key, value)| (key, as_text(value)))
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether the model has room for a key of metadata that somebody else chose.
#[must_use]
pub fn is_ours_to_hold(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= 256
        && !key.chars().any(char::is_control)
        && !key.starts_with(Instance::RESERVED_PREFIX)
}

/// A string without its quotes, and everything else as JSON.
#[must_use]
pub fn as_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// A weight as a framework writes it, in a number or in text. What is too large is as large as can be, and what is below
/// zero nothing.
///
/// ```
/// use callsign_core::formats::as_weight;
///
/// assert_eq!(as_weight(&"10".into()), Some(10));
/// assert_eq!(as_weight(&(-1).into()), Some(0));
/// assert_eq!(as_weight(&"much".into()), None);
/// ```
#[must_use]
pub fn as_weight(value: &Value) -> Option<u32> {
    let weight = match value {
        Value::String(text) => text.trim().parse().ok()?,
        other => other.as_i64()?,
    };
    Some(u32::try_from(weight.max(0)).unwrap_or(u32::MAX))
}
