//! What formats of others have no place for, in an object of our own that they ignore.

use callsign_core::{Instance, State};
use serde::{Deserialize, Serialize};

/// Each only where it is not the default.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Own {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) zone: Option<String>,
    /// Where the node is not called by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) id: Option<String>,
    /// Keys that stand among the metadata for other readers alone.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) added: Vec<String>,
}

impl Own {
    /// Everything that there may be.
    pub(super) fn of(instance: &Instance) -> Self {
        Self {
            protocol: instance.protocol().map(Into::into),
            state: (instance.state() != State::Up).then(|| instance.state().as_str().into()),
            version: instance.version().map(Into::into),
            weight: (instance.weight() != 1).then(|| instance.weight()),
            zone: instance.zone().map(Into::into),
            id: None,
            added: Vec::new(),
        }
    }

    /// `None`, if there is nothing to say.
    pub(super) fn if_any(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }

    /// An instance with what it says.
    pub(super) fn apply(self, mut instance: Instance) -> callsign_core::Result<Instance> {
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
