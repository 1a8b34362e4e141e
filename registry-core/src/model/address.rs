//! [`Address`]: the host and port that an instance is reached at.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// A host (IPv4, IPv6 or DNS name) and a port from 1 to 65535.
///
/// IPv6 hosts are written in brackets, and printed so: `[::1]:50051`. Cheap to clone.
///
/// ```
/// # use callsign_core::Address;
/// let address: Address = "[::1]:50051".parse()?;
/// assert_eq!((address.host(), address.port()), ("::1", 50051));
/// assert_eq!(address.to_string(), "[::1]:50051");
/// # Ok::<(), callsign_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: Arc<str>,
    port: NonZeroU16,
}

impl Address {
    /// Puts an address together from a host, without brackets, and a port.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): a port outside 1..=65535, or a host that is neither an IP
    /// address nor a DNS name.
    pub fn new(host: &str, port: u32) -> Result<Self> {
        let text = || if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let port = u16::try_from(port).ok().and_then(NonZeroU16::new).ok_or_else(|| {
            Error::invalid(format!("address \"{}\" has port {port}: a port is 1 to 65535", text()))
        })?;
        match host.parse::<IpAddr>() {
            // Only the one way to write it is read, so there is nothing to normalise.
            Ok(IpAddr::V4(_)) => return Ok(Self { host: host.into(), port }),
            Ok(IpAddr::V6(ip)) => return Ok(Self { host: ip.to_string().into(), port }),
            Err(_) => {}
        }
        // A zone index (fe80::1%eth0) means something on one host only.
        if host.contains(':') {
            return Err(Error::invalid(format!(
                "address \"{}\" has no valid IPv6 host: write [::1]:50051",
                text()
            )));
        }
        check_dns_name(host).map_err(|rule| Error::invalid(format!("address \"{}\": {rule}", text())))?;
        Ok(Self { host: host.into(), port })
    }

    /// Reads an address that may lack its port.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): a port outside 1..=65535, or a host that is neither an IP address nor
    /// a DNS name.
    pub fn with_default_port(text: &str, port: u16) -> Result<Self> {
        let has_port =
            text.rsplit_once(':').is_some_and(|(before, _)| !before.contains(':') || before.ends_with(']'));
        if has_port { text.parse() } else { format!("{text}:{port}").parse() }
    }

    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// The socket address, where the host is an IP address and needs no look-up.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse().ok()?, self.port()))
    }

    /// Whether it is `0.0.0.0` or `[::]`, which can be listened on and never called.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        matches!(&*self.host, "0.0.0.0" | "::")
    }
}

fn check_dns_name(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("the host is empty: write host:port, as 10.0.0.1:50051".into());
    }
    if host.len() > 253 {
        return Err(format!("the host has {} characters: a DNS name has at most 253", host.len()));
    }
    let fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let mut labels = host.strip_suffix('.').unwrap_or(host).split('.');
    if !labels.clone().all(fits) {
        return Err("the host is neither an IP address nor a DNS name".into());
    }
    // "300.1.2.3" and "1.2.3" would be looked up as names, and never mean one.
    if labels.all(|label| label.bytes().all(|b| b.is_ascii_digit())) {
        return Err("the host is not a valid IPv4 address".into());
    }
    Ok(())
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let how = "write host:port, as 10.0.0.1:50051, [::1]:50051 or web.example.org:50051";
        if text.starts_with('/') || text.starts_with("unix:") {
            return Err(Error::invalid(format!(
                "address {text:?} is a Unix socket, which no other machine can reach: {how}"
            )));
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once("]:").ok_or_else(|| {
                Error::invalid(format!("address {text:?} has no port behind its brackets: {how}"))
            })?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err(Error::invalid(format!(
                    "address {text:?} has no valid IPv6 host in its brackets: {how}"
                )));
            }
            (host, port)
        } else {
            let (host, port) = text
                .rsplit_once(':')
                .ok_or_else(|| Error::invalid(format!("address {text:?} has no port: {how}")))?;
            if host.contains(':') {
                return Err(Error::invalid(format!(
                    "address {text:?}: an IPv6 host goes in brackets: {how}"
                )));
            }
            (host, port)
        };
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::invalid(format!(
                "address {text:?} has port {port:?}, which is no number: {how}"
            )));
        }
        // Digits only, so what does not fit is just too large.
        Self::new(host, port.parse().unwrap_or(u32::MAX)).map_err(|error| {
            if port.len() > 9 {
                Error::invalid(format!("address {text:?}: a port is 1 to 65535"))
            } else {
                error
            }
        })
    }
}

impl TryFrom<SocketAddr> for Address {
    type Error = Error;

    fn try_from(socket: SocketAddr) -> Result<Self> {
        Self::new(&socket.ip().to_string(), socket.port().into())
    }
}

impl TryFrom<&str> for Address {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for text in ["127.0.0.1:50051", "[::1]:1", "web.example.org:65535", "localhost:80", "a_b:9"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("[2001:DB8:0::1]:80".parse::<Address>().unwrap().to_string(), "[2001:db8::1]:80");
        assert_eq!("127.0.0.1:1".parse::<Address>().unwrap().socket_addr(), Some(([127, 0, 0, 1], 1).into()));
        assert_eq!("localhost:1".parse::<Address>().unwrap().socket_addr(), None);
    }

    #[test]
    fn what_is_refused_is_named() {
        for (text, says) in [
            ("127.0.0.1:0", "port 0"),
            ("127.0.0.1:70000", "port 70000"),
            ("127.0.0.1:99999999999", "1 to 65535"),
            ("127.0.0.1", "no port"),
            ("[::1]", "no port"),
            ("::1:80", "brackets"),
            ("[::g]:80", "IPv6"),
            (":80", "empty"),
            ("a b:80", "neither"),
            ("300.1.2.3:80", "IPv4"),
            ("h:+80", "no number"),
            ("unix:/tmp/s", "Unix socket"),
            ("http://a:80", "brackets"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
