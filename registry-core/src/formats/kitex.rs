//! Kitex' weights, of which the usual one is 10.

use serde_json::Value;

use super::as_weight;
use crate::model::Instance;

/// Kitex' usual weight, which is 1 here, and what it takes a weight of nothing or less for.
const USUAL: u32 = 10;

/// An instance's weight as Kitex counts.
#[must_use]
pub fn weight_of(instance: &Instance) -> u32 {
    instance.weight().saturating_mul(USUAL)
}

/// What a weight of Kitex' is here: rounded, and never to nothing.
///
/// ```
/// use callsign_core::formats::kitex::weight;
///
/// assert_eq!(weight(Some(&30.into())), 3);
/// assert_eq!((weight(Some(&1.into())), weight(Some(&0.into())), weight(None)), (1, 1, 1));
/// ```
#[must_use]
pub fn weight(value: Option<&Value>) -> u32 {
    let weight = value.and_then(as_weight).filter(|weight| *weight > 0).unwrap_or(USUAL);
    (weight.saturating_add(USUAL / 2) / USUAL).max(1)
}
