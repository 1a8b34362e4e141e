//! The atomics of what threads share on the path of calls: `tests/interleavings.rs` takes loom's for them.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
