//! The core of **callsign**: the model, the two traits for users, the traits for authors of backends, and the two
//! drivers that all backends share.
//!
//! Users depend on the `callsign` crate, which re-exports what they need. An author of a backend depends on
//! this one: write a [`Protocol`] with its [`Source`] and [`Lease`], and [`Registry::new`] does the rest.
//! [`memory`] is the shortest complete example.

mod access;
mod backend;
mod driver;
mod error;
mod instancer;
mod model;
mod registrar;
mod registry;
mod report;
mod secret;
mod settings;
mod snapshot;
mod time;
mod url;

pub mod file;
pub mod fixed;
pub mod formats;
pub mod memory;
#[cfg(feature = "testing")]
pub mod testing;

pub use access::{
    Access, Connector, CredentialProvider, Credentials, PasswordFile, Pem, Stream, Tls, TlsVariables,
    Trouble, Variables,
};
#[cfg(feature = "http")]
pub use access::{HttpAnswer, HttpClient, HttpTurn, PendingRequest, Target};
pub use backend::{Claim, Kept, Lease, Loss, Protocol, Removal, Source, Terms, Update};
pub use error::{Error, ErrorKind, Result};
pub use instancer::{InstanceWatch, Instancer};
pub use model::{Address, Instance, InstanceId, ServiceName, State};
pub use registrar::{Registrar, Registration, Status};
pub use registry::Registry;
pub use report::{Finding, Report};
pub use secret::Secret;
pub use settings::Settings;
pub use snapshot::{Freshness, Listed, Snapshot};
pub use url::{Query, RegistryUrl};
