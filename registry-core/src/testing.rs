//! The parts of a registry without its drivers, for tests that a backend keeps to its contract.

use crate::backend::{Lease, Source};
use crate::model::{Instance, ServiceName};
use crate::registry::Registry;

/// A source of a registry's backend, which nobody drives.
#[must_use]
pub fn source(registry: &Registry, service: &ServiceName) -> Box<dyn Source> {
    registry.core().source(service)
}

/// A lease of a registry's backend, which nobody drives. To be [released](Lease::release) before it is dropped.
#[must_use]
pub fn lease(registry: &Registry, instance: &Instance) -> Box<dyn Lease> {
    registry.core().lease(instance)
}
