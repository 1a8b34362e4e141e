//! [`Variables`]: what the environment says, as the tools of a registry read it.

use std::fmt;

use super::{Pem, Tls};
use crate::error::{Error, Result};
use crate::model::Address;

/// Environment variables, by which the tools of a registry are told what a URL does not say here. One that is empty
/// counts as not set.
#[derive(Clone, Copy)]
pub struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
}

impl fmt::Debug for Variables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Variables")
    }
}

/// The names of the variables that say how TLS is spoken.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_structs, reason = "a backend names all of them")]
pub struct TlsVariables {
    /// The file of the authorities that are trusted.
    pub ca: &'static str,
    /// The file of our certificate.
    pub cert: &'static str,
    /// The file of its key.
    pub key: &'static str,
    /// The name that the server's certificate must have, where there is such a variable.
    pub server_name: Option<&'static str>,
    /// Whether the server's certificate is checked, and what the variable's `true` means for that.
    pub verify: (&'static str, bool),
}

impl<'a> Variables<'a> {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self { get: &|name| std::env::var(name).ok() }
    }

    /// Those that a function knows.
    pub fn of(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { get }
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    /// Whether a variable says yes or no.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): it says something else.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name).as_deref() {
            None => Ok(None),
            Some("1" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(Error::invalid(format!("{name} is {other:?}: it is true or false"))),
        }
    }

    /// A server that a variable names, and whether TLS is spoken with it, if the variable says that:
    /// `host:port`, `http://host:port` or `https://host:port`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): it is none of these.
    pub fn server(name: &str, value: &str, default_port: u16) -> Result<(Address, Option<bool>)> {
        if value.contains('@') {
            // It may be a password, which is not to be shown.
            return Err(Error::invalid(format!(
                "{name} has an '@': who we are, other variables and the URL say"
            )));
        }
        let (scheme, host) = value.split_once("://").unwrap_or(("", value));
        let secure = match scheme {
            "" => None,
            "http" => Some(false),
            "https" => Some(true),
            _ => {
                return Err(Error::invalid(format!(
                    "{name} has {value:?}: a server is host:port, http://host:port or https://host:port"
                )));
            }
        };
        let address = Address::with_default_port(host.trim_end_matches('/'), default_port)
            .map_err(|error| error.context(name))?;
        Ok((address, secure))
    }

    /// How TLS is spoken.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): a certificate without its key or the other way round, or a flag that is
    /// none.
    pub fn tls(&self, names: TlsVariables) -> Result<Tls> {
        let mut tls = Tls::default();
        if let Some(ca) = self.get(names.ca) {
            tls = tls.ca(Pem::file(ca));
        }
        match (self.get(names.cert), self.get(names.key)) {
            (Some(cert), Some(key)) => tls = tls.identity(Pem::file(cert), Pem::file(key)),
            (None, None) => {}
            _ => {
                return Err(Error::invalid(format!(
                    "one of {} and {} is set: each needs the other",
                    names.cert, names.key
                )));
            }
        }
        if let Some(name) = names.server_name.and_then(|name| self.get(name)) {
            tls = tls.server_name(name);
        }
        let (verify, yes) = names.verify;
        if self.flag(verify)?.is_some_and(|said| said != yes) {
            tls = tls.insecure_skip_verify();
        }
        Ok(tls)
    }
}
