//! [`Instance`]: one running copy of a service, as it is registered and found.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Address, ServiceName};
use crate::error::{Error, Result};

/// Tells one instance of a service from the others; unique within its service.
///
/// By default it is the address, so that a restarted server takes its own old entry over instead of
/// waiting for it to expire. 1 to 256 bytes, no control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// The most bytes an id may have.
    pub const MAX_LEN: usize = 256;

    /// Checks an id.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): empty, longer than 256 bytes, or with control characters.
    pub fn new(id: &str) -> Result<Self> {
        if id.is_empty() || id.len() > Self::MAX_LEN {
            return Err(Error::invalid(format!(
                "instance id of {} bytes: an id has 1 to {} bytes",
                id.len(),
                Self::MAX_LEN
            )));
        }
        if id.chars().any(char::is_control) {
            return Err(Error::invalid(format!("instance id {id:?}: an id has no control characters")));
        }
        Ok(Self(id.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self> {
        Self::new(id)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Whether an instance wants requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Wants requests.
    #[default]
    Up,
    /// Finishes what it has and wants no new requests: the first phase of leaving.
    Draining,
    /// Registered, and must not be called: unhealthy by its own word.
    Down,
}

impl State {
    /// `up`, `draining` or `down`, as formats store it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "up" => Ok(Self::Up),
            "draining" => Ok(Self::Draining),
            "down" => Ok(Self::Down),
            _ => Err(Error::invalid(format!("state {text:?}: a state is up, draining or down"))),
        }
    }
}

/// One running copy of a service: where it is, and what a balancer may want to know of it.
///
/// ```
/// # use callsign_core::Instance;
/// let instance = Instance::new("book", "10.0.0.1:50051")?
///     .with_protocol("grpc")?
///     .with_weight(10)
///     .with_zone("eu-1")?
///     .with_metadata("team", "library")?;
/// assert_eq!(instance.id().as_str(), "10.0.0.1:50051");
/// # Ok::<(), callsign_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Instance {
    service: ServiceName,
    id: InstanceId,
    address: Address,
    state: State,
    weight: u32,
    protocol: Option<Arc<str>>,
    zone: Option<Arc<str>>,
    version: Option<Arc<str>>,
    metadata: BTreeMap<String, String>,
}

impl Instance {
    /// The most bytes that all metadata of an instance may have together, keys and values.
    pub const MAX_METADATA: usize = 64 * 1024;
    /// Keys that begin so are callsign's own, in formats that have no other place for weight, zone or state.
    pub const RESERVED_PREFIX: &str = "callsign";

    /// An instance that is up, with weight 1, and its address as its id.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): a bad name or address, or `0.0.0.0` / `[::]`, which can be
    /// listened on and never called.
    pub fn new<S, A>(service: S, address: A) -> Result<Self>
    where
        S: TryInto<ServiceName, Error: Into<Error>>,
        A: TryInto<Address, Error: Into<Error>>,
    {
        let service = service.try_into().map_err(Into::into)?;
        let address = address.try_into().map_err(Into::into)?;
        if address.is_unspecified() {
            return Err(Error::invalid(format!(
                "address {address} can be listened on and never called: advertise an address that clients reach"
            )));
        }
        let id = InstanceId::new(&address.to_string())?;
        Ok(Self {
            service,
            id,
            address,
            state: State::Up,
            weight: 1,
            protocol: None,
            zone: None,
            version: None,
            metadata: BTreeMap::new(),
        })
    }

    /// The same with another id.
    ///
    /// # Errors
    /// As [`InstanceId::new`].
    pub fn with_id(mut self, id: &str) -> Result<Self> {
        self.id = InstanceId::new(id)?;
        Ok(self)
    }

    /// The same in another state.
    #[must_use]
    pub fn with_state(mut self, state: State) -> Self {
        self.state = state;
        self
    }

    /// The same with another weight: its share relative to the others, 0 for none.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The same with the protocol spoken at its address, such as `grpc` or `http`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): not a URL scheme (a letter, then letters, digits, `+`, `-`, `.`).
    pub fn with_protocol(mut self, protocol: &str) -> Result<Self> {
        let mut bytes = protocol.bytes();
        let fits = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
            && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            && protocol.len() <= 32;
        if !fits {
            return Err(Error::invalid(format!(
                "protocol {protocol:?}: a protocol is a URL scheme of at most 32 letters, digits, '+', '-' and '.'"
            )));
        }
        self.protocol = Some(protocol.to_ascii_lowercase().into());
        Ok(self)
    }

    /// The same in a zone: the name of what fails together, such as a data centre.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): empty, longer than 128 bytes, or with control characters.
    pub fn with_zone(mut self, zone: &str) -> Result<Self> {
        self.zone = Some(short_text("zone", zone)?);
        Ok(self)
    }

    /// The same with the version of the software that runs.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): empty, longer than 128 bytes, or with control characters.
    pub fn with_version(mut self, version: &str) -> Result<Self> {
        self.version = Some(short_text("version", version)?);
        Ok(self)
    }

    /// The same with one more pair of metadata, or another value for a key that it has.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): an empty or reserved key, a key with control characters, or
    /// more than [`MAX_METADATA`](Self::MAX_METADATA) bytes in all.
    pub fn with_metadata(self, key: impl Into<String>, value: impl Into<String>) -> Result<Self> {
        self.with_all_metadata([(key.into(), value.into())])
    }

    /// The same with more pairs of metadata, or other values for keys that it has. In linear time, whatever a
    /// registry may hold.
    ///
    /// # Errors
    /// As [`with_metadata`](Self::with_metadata).
    pub fn with_all_metadata(mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        for (key, value) in pairs {
            if key.is_empty() || key.len() > 256 || key.chars().any(char::is_control) {
                return Err(Error::invalid(format!(
                    "metadata key {key:?}: a key has 1 to 256 bytes and no control characters"
                )));
            }
            if key.starts_with(Self::RESERVED_PREFIX) {
                return Err(Error::invalid(format!(
                    "metadata key {key:?}: keys that begin with \"{}\" are reserved",
                    Self::RESERVED_PREFIX
                )));
            }
            self.metadata.insert(key, value);
        }
        let bytes: usize = self.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
        if bytes > Self::MAX_METADATA {
            return Err(Error::invalid(format!(
                "metadata of {bytes} bytes: an instance has at most {} in all",
                Self::MAX_METADATA
            )));
        }
        Ok(self)
    }

    /// The service that it is an instance of.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// What tells it from the others.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Where it is reached.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether it wants requests.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Its share relative to the others.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The protocol spoken at its address, where its registry says so.
    #[must_use]
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Where it runs.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// What it runs.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Everything else that was registered with it, sorted by key.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

fn short_text(what: &str, text: &str) -> Result<Arc<str>> {
    if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "{what} {text:?}: a {what} has 1 to 128 bytes and no control characters"
        )));
    }
    Ok(text.into())
}

/// So that `Instance::new` takes what is already a name or an address as well as text.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<Instance>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn new_takes_text_or_values() {
        let name: ServiceName = "book".parse().unwrap();
        let socket: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert_eq!(Instance::new(name, socket).unwrap(), Instance::new("book", "127.0.0.1:1").unwrap());
    }

    #[test]
    fn bad_values_are_named() {
        let good = || Instance::new("book", "127.0.0.1:1").unwrap();
        assert!(refused(Instance::new("book", "0.0.0.0:1")).contains("advertise"));
        assert!(refused(Instance::new("book", "[::]:1")).contains("advertise"));
        assert!(refused(Instance::new("", "127.0.0.1:1")).contains("empty"));
        assert!(refused(good().with_id("")).contains("0 bytes"));
        assert!(refused(good().with_id("a\n")).contains("control"));
        assert!(refused(good().with_zone("")).contains("zone"));
        assert!(refused(good().with_protocol("a b")).contains("scheme"));
        assert!(refused(good().with_metadata("callsign-x", "")).contains("reserved"));
        assert!(refused(good().with_metadata("k", "x".repeat(64 * 1024))).contains("65537 bytes"));
        assert!(good().with_metadata("k", "x".repeat(64 * 1024 - 1)).is_ok());
    }
}
