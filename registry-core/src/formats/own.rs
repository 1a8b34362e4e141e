//! [`Own`]: what formats of others have no place for.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::{Instance, State};

/// What formats of others have no place for, in an object of our own that they ignore. Each only where it is not the
/// default; what a format says itself, its author takes out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Own {
    /// What is spoken at the address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub protocol: Option<String>,
    /// Its state, by name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// Its weight.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weight: Option<u32>,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub zone: Option<String>,
    /// Its id, where the entry is not called by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// Keys that stand among the metadata for other readers alone.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub added: Vec<String>,
    /// Keys of the metadata that are that, though the format means something of its own by them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub kept: Vec<String>,
}

impl Own {
    /// All that an instance says.
    #[must_use]
    pub fn of(instance: &Instance) -> Self {
        Self {
            protocol: instance.protocol().map(Into::into),
            state: (instance.state() != State::Up).then(|| instance.state().as_str().into()),
            version: instance.version().map(Into::into),
            weight: (instance.weight() != 1).then(|| instance.weight()),
            zone: instance.zone().map(Into::into),
            id: None,
            added: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// `None`, if there is nothing to say.
    #[must_use]
    pub fn if_any(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }

    /// An instance with what it says, but for the id and what is said of metadata.
    ///
    /// # Errors
    /// Somebody else wrote it: something is not as an instance may have it.
    pub fn apply(self, mut instance: Instance) -> Result<Instance> {
        if let Some(protocol) = self.protocol {
            instance = instance.with_protocol(&protocol)?;
        }
        if let Some(state) = self.state {
            instance = instance.with_state(state.parse()?);
        }
        if let Some(version) = self.version {
            instance = instance.with_version(&version)?;
        }
        if let Some(weight) = self.weight {
            instance = instance.with_weight(weight);
        }
        if let Some(zone) = self.zone {
            instance = instance.with_zone(&zone)?;
        }
        Ok(instance)
    }
}
