//! [`RegistryUrl`]: what names a registry, `scheme[+tls]://[user:password@]host:port[,host:port...]/prefix?key=value`.
//!
//! The authority is split here because the list of hosts is not part of the URL standard. Nothing of a URL is
//! shown but through [`RegistryUrl`]'s own `Display`, which leaves user and password out.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::model::Address;
use crate::secret::Secret;

/// A registry URL, taken apart.
#[derive(Clone)]
pub struct RegistryUrl {
    scheme: String,
    tls: bool,
    credentials: Option<(String, Secret)>,
    hosts: Vec<String>,
    path: String,
    query: Vec<(String, String)>,
}

impl RegistryUrl {
    /// Takes a URL apart. What the scheme means, and which keys it knows, is the backend's to say.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the part and the rule, and never a password.
    pub fn parse(text: &str) -> Result<Self> {
        let grammar =
            "a registry URL is scheme://host:port/prefix?key=value, as etcd://127.0.0.1:2379/services";
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| Error::invalid(format!("registry URL {text:?} has no scheme: {grammar}")))?;
        let (scheme, tls) = scheme.strip_suffix("+tls").map_or((scheme, false), |scheme| (scheme, true));
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        if !is_scheme {
            return Err(Error::invalid(format!("registry URL has the scheme {scheme:?}: {grammar}")));
        }
        if rest.contains('#') {
            return Err(Error::invalid("registry URL has a '#': write it as %23".to_owned()));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash)),
            None => ("", rest),
        };
        let (credentials, hosts) = match authority.rsplit_once('@') {
            // What it says would be shown, as hosts and path are.
            None if cuts_a_password(authority, path, query) => {
                return Err(Error::invalid(
                    "registry URL has an '@' behind its host: in a password write / as %2F and ? as %3F, and elsewhere @ \
                     as %40",
                ));
            }
            None => (None, authority),
            Some((user, hosts)) => {
                let (user, password) = user.split_once(':').unwrap_or((user, ""));
                let password = decode("password", password).map_err(|_| {
                    Error::invalid("registry URL has a password that is not UTF-8 once decoded".to_owned())
                })?;
                (Some((decode("user", user)?, Secret::new(password))), hosts)
            }
        };
        let hosts = match hosts {
            "" => Vec::new(),
            hosts => hosts.split(',').map(str::to_owned).collect(),
        };
        if hosts.iter().any(String::is_empty) {
            return Err(Error::invalid("registry URL has an empty host between its commas".to_owned()));
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Error::invalid(format!("registry URL has the key {pair:?} without a value: write {pair}=..."))
            })?;
            let (key, value) = (decode("key", key)?, decode("value", value)?);
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(Error::invalid(format!(
                    "registry URL has the key {key:?} twice: once is the rule"
                )));
            }
            pairs.push((key, value));
        }
        let path = decode("path", path)?;
        Ok(Self { scheme: scheme.to_ascii_lowercase(), tls, credentials, hosts, path, query: pairs })
    }

    /// What stands before the colon, in lower case and without `+tls`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether the scheme ends in `+tls`.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// User and password, where the URL has them.
    #[must_use]
    pub fn credentials(&self) -> Option<(&str, &Secret)> {
        self.credentials.as_ref().map(|(user, password)| (user.as_str(), password))
    }

    /// The hosts, with `default_port` where one has no port of its own.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): no host at all, or one that is no address.
    pub fn hosts(&self, default_port: u16) -> Result<Vec<Address>> {
        if self.hosts.is_empty() {
            let scheme = &self.scheme;
            return Err(Error::invalid(format!(
                "registry URL {self} names no host: write {scheme}://127.0.0.1:{default_port}/..."
            )));
        }
        self.hosts
            .iter()
            .map(|host| {
                Address::with_default_port(host, default_port).map_err(|error| error.context("registry URL"))
            })
            .collect()
    }

    /// Whether it names any host.
    #[must_use]
    pub fn has_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// What stands behind the hosts, or behind the colon where there is no `//`; decoded. With its leading slash:
    /// `/services` of `etcd://h:1/services`, `NAME` of `memory:NAME`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The keys and values, to be taken out one by one.
    #[must_use]
    pub fn query(&self) -> Query {
        Query { pairs: self.query.clone(), known: BTreeSet::new() }
    }
}

/// Whether a password with a character that ends an authority may have been taken apart.
fn cuts_a_password(authority: &str, path: &str, query: &str) -> bool {
    let Some((_, port)) = authority.rsplit_once(':') else { return false };
    path.contains('@') || (query.contains('@') && !port.bytes().all(|b| b.is_ascii_digit()))
}

fn decode(what: &str, text: &str) -> Result<String> {
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| {
        Error::invalid(format!("registry URL has a {what} {text:?} that is not UTF-8 once decoded"))
    })
}

/// Scheme, hosts and path: what may be shown of a URL. Values may be secrets, so keys and values are left out too.
impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { "+tls" } else { "" };
        let slashes = if self.hosts.is_empty() && !self.path.starts_with('/') { "" } else { "//" };
        write!(f, "{}{tls}:{slashes}{}{}", self.scheme, self.hosts.join(","), self.path)
    }
}

impl fmt::Debug for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The `key=value` part of a URL. Each known key is taken once; what is left at the end is an error.
#[derive(Clone)]
pub struct Query {
    pairs: Vec<(String, String)>,
    known: BTreeSet<&'static str>,
}

impl Query {
    /// Takes the value of a key, if the URL has it.
    pub fn take(&mut self, key: &'static str) -> Option<String> {
        self.known.insert(key);
        let at = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.swap_remove(at).1)
    }

    /// Takes a duration such as `500ms`, `10s` or `2m`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): not a duration.
    pub fn duration(&mut self, key: &'static str) -> Result<Option<Duration>> {
        self.take(key)
            .map(|value| {
                humantime::parse_duration(&value).map_err(|error| {
                    Error::invalid(format!(
                        "registry URL has {key}={value}: {key} is a duration, as 500ms, 10s or 2m"
                    ))
                    .with_source(error)
                })
            })
            .transpose()
    }

    /// Takes `true` or `false`, where the URL has such a key.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): anything else.
    pub fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("false") => Ok(Some(false)),
            Some("true") => Ok(Some(true)),
            Some(other) => {
                Err(Error::invalid(format!("registry URL has {key}={other}: {key} is true or false")))
            }
        }
    }

    /// Takes a value that must be one of a few.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): another value; the error lists those there are.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Result<Option<T>> {
        self.take(key).map(|value| choose(key, &value, choices)).transpose()
    }

    /// Takes values that must each be one of a few, with commas between them; none where the URL has no such key.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): another value; the error lists those there are.
    pub fn choices<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Result<Vec<T>> {
        let Some(values) = self.take(key) else { return Ok(Vec::new()) };
        values.split(',').map(|value| choose(key, value.trim(), choices)).collect()
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): a key that nobody took; the error lists the known ones.
    pub fn finish(self) -> Result<()> {
        let Some((key, _)) = self.pairs.first() else { return Ok(()) };
        let known: Vec<_> = self.known.into_iter().collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(Error::invalid(format!("registry URL has the unknown key {key:?}: known here are {known}")))
    }
}

fn choose<T: Copy>(key: &str, value: &str, choices: &[(&str, T)]) -> Result<T> {
    choices.iter().find(|(name, _)| *name == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        Error::invalid(format!("registry URL has {key}={value}: {key} is one of {}", names.join(", ")))
    })
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.pairs.iter().map(|(key, _)| key)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_apart() {
        let url = RegistryUrl::parse("etcd+tls://al:s%40c@10.0.0.1:2379,[::1]:4,h/a%20b?ttl=5s&format=gokit")
            .unwrap();
        assert_eq!((url.scheme(), url.tls(), url.path()), ("etcd", true, "/a b"));
        let (user, password) = url.credentials().unwrap();
        assert_eq!((user, password.expose()), ("al", "s@c"));
        let hosts: Vec<_> = url.hosts(2379).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["10.0.0.1:2379", "[::1]:4", "h:2379"]);
        let mut query = url.query();
        assert_eq!(query.duration("ttl").unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(query.choice("format", &[("grpc", 1), ("gokit", 2)]).unwrap(), Some(2));
        query.finish().unwrap();
        let mut query = RegistryUrl::parse("etcd://h?read=a,%20b").unwrap().query();
        assert_eq!(query.choices("read", &[("a", 1), ("b", 2)]).unwrap(), [1, 2]);
        assert!(query.choices("none", &[("a", 1)]).unwrap().is_empty());
        let mut query = RegistryUrl::parse("etcd://h?read=a,c").unwrap().query();
        let error = query.choices("read", &[("a", 1), ("b", 2)]).unwrap_err().to_string();
        assert!(error.contains("read=c") && error.contains("a, b"), "{error}");

        assert_eq!(RegistryUrl::parse("memory:x").unwrap().path(), "x");
        assert_eq!(RegistryUrl::parse("file:///tmp/x").unwrap().path(), "/tmp/x");
        assert_eq!(RegistryUrl::parse("etcd://[::1]").unwrap().hosts(1).unwrap()[0].to_string(), "[::1]:1");
    }

    #[test]
    fn what_is_refused_is_named() {
        for (text, says) in [
            ("etcd", "no scheme"),
            ("e_d://h", "\"e_d\""),
            ("etcd://a,,b", "empty host"),
            ("etcd://h?ttl", "without a value"),
            ("etcd://h?a=1&a=2", "twice"),
            ("etcd://h#x", "%23"),
        ] {
            let error = RegistryUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let hosts = |text: &str| RegistryUrl::parse(text).unwrap().hosts(1).unwrap_err().to_string();
        assert!(hosts("etcd:///x").contains("no host"));
        assert!(hosts("etcd://h:0").contains("port 0"));
        let mut query = RegistryUrl::parse("etcd://h?tll=5s").unwrap().query();
        query.take("ttl");
        let error = query.finish().unwrap_err().to_string();
        assert!(error.contains("\"tll\"") && error.contains("ttl"), "{error}");
    }

    #[test]
    fn no_secret_is_shown() {
        let url = RegistryUrl::parse("etcd://al:canary@h:1/p?token=canary").unwrap();
        let shown = format!("{url} {url:?} {:?} {:?}", url.query(), url.credentials());
        assert!(!shown.contains("canary"), "{shown}");
    }
}
