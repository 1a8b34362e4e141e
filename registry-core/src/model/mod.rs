//! What is registered and found: [`ServiceName`], [`Instance`], [`Address`].

mod address;
mod instance;
mod service;

pub use address::Address;
pub use instance::{Instance, InstanceId, State};
pub use service::ServiceName;
