//! [`ServiceName`]: the logical name that instances register under and clients watch.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A service's name: 1 to 128 letters, digits, `.`, `_` and `-`, and neither `.` nor `..`.
///
/// The rule is the common ground of what etcd keys, Consul names, ZooKeeper nodes and file names allow, so
/// that a service can move from one registry to another. Cheap to clone.
///
/// ```
/// # use callsign_core::ServiceName;
/// let book: ServiceName = "book".parse()?;
/// assert_eq!(book.as_str(), "book");
/// assert!("a/b".parse::<ServiceName>().is_err());
/// # Ok::<(), callsign_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The most bytes a name may have.
    pub const MAX_LEN: usize = 128;

    /// Checks a name.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the name and the rule that it breaks.
    pub fn new(name: &str) -> Result<Self> {
        let rule = "a service name is 1 to 128 letters, digits, '.', '_' and '-'";
        if name.is_empty() {
            return Err(Error::invalid(format!("service name is empty: {rule}")));
        }
        if name.len() > Self::MAX_LEN {
            return Err(Error::invalid(format!("service name of {} bytes is too long: {rule}", name.len())));
        }
        if name == "." || name == ".." {
            return Err(Error::invalid(format!(
                "service name \"{name}\" is a path: {rule}, and not . or .."
            )));
        }
        if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
        {
            return Err(Error::invalid(format!("service name {name:?} has the character {bad:?}: {rule}")));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<&str> for ServiceName {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(&name)
    }
}

impl From<&ServiceName> for ServiceName {
    fn from(name: &ServiceName) -> Self {
        name.clone()
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_named() {
        for (name, says) in [
            ("", "empty"),
            (".", "a path"),
            ("..", "a path"),
            ("a/b", "'/'"),
            ("bücher", "'ü'"),
            (&"x".repeat(129), "129 bytes"),
        ] {
            let error = ServiceName::new(name).unwrap_err().to_string();
            assert!(error.contains(says), "{name:?}: {error}");
            assert!(error.contains("letters, digits"), "{error}");
        }
        for name in ["book", "Book.v1", "a_b-c", &"x".repeat(128)] {
            assert_eq!(ServiceName::new(name).unwrap().as_str(), name);
        }
    }
}
