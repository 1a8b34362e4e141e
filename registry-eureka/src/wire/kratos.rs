//! Kratos, which reads all that it knows of an instance from its metadata, and writes it there.

use callsign_core::formats::kratos::{Fields, decode, endpoint};
use callsign_core::{Address, Instance, InstanceId, ServiceName};

use super::entry::Entry;

const ID: &str = "ID";
const NAME: &str = "Name";
const VERSION: &str = "Version";
const ENDPOINTS: &str = "Endpoints";
/// Who wrote it.
const AGENT: &str = "agent";
const ITS_AGENT: &str = "go-eureka-client";

/// What it looks for among the metadata.
pub(super) fn says(instance: &Instance) -> [(&'static str, String); 5] {
    [
        (ID, instance.id().to_string()),
        (NAME, instance.service().to_string()),
        (VERSION, instance.version().unwrap_or_default().to_owned()),
        (ENDPOINTS, endpoint(instance)),
        (AGENT, ITS_AGENT.to_owned()),
    ]
}

/// Whether it wrote an entry.
pub(super) fn wrote(entry: &Entry) -> bool {
    entry.meta(AGENT) == Some(ITS_AGENT) && entry.meta(ENDPOINTS).is_some()
}

/// Whether a key is none of the owner's.
pub(super) fn is_its(key: &str) -> bool {
    matches!(key, ID | NAME | VERSION | ENDPOINTS | AGENT)
}

/// What it says is spoken at an address. Of several endpoints each has an entry of its own, and all may say the last one's:
/// what is said of another address is none of this one's.
pub(super) fn protocol(service: &ServiceName, entry: &Entry, address: &Address) -> Option<String> {
    let fields = Fields { endpoints: vec![entry.meta(ENDPOINTS)?.into()], ..Fields::default() };
    let said = decode(service, &InstanceId::new(entry.key()).ok()?, fields, None).ok()?;
    let said = said.first().filter(|said| said.address() == address)?;
    said.protocol().map(str::to_owned)
}
