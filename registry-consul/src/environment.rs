//! [`Environment`]: what Consul's own tools are told by variables, for whatever a URL does not say.

use std::fmt;

use callsign_core::{Address, Error, Pem, Result, Secret, Target, Tls};

use crate::builder::Builder;
use crate::token::Token;

const ADDR: &str = "CONSUL_HTTP_ADDR";
const SSL: &str = "CONSUL_HTTP_SSL";
const SSL_VERIFY: &str = "CONSUL_HTTP_SSL_VERIFY";
const CA: &str = "CONSUL_CACERT";
const CERT: &str = "CONSUL_CLIENT_CERT";
const KEY: &str = "CONSUL_CLIENT_KEY";
const SERVER_NAME: &str = "CONSUL_TLS_SERVER_NAME";
const TOKEN: &str = "CONSUL_HTTP_TOKEN";
const TOKEN_FILE: &str = "CONSUL_HTTP_TOKEN_FILE";
const NAMESPACE: &str = "CONSUL_NAMESPACE";
const PARTITION: &str = "CONSUL_PARTITION";

/// The variables; one that is empty counts as not set.
pub(crate) struct Environment<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

impl Environment<'_> {
    pub(crate) fn of_process() -> Self {
        Self { get: &|name| std::env::var(name).ok() }
    }

    #[cfg(test)]
    pub(crate) fn of(get: &dyn Fn(&str) -> Option<String>) -> Environment<'_> {
        Environment { get }
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name).as_deref() {
            None => Ok(None),
            Some("1" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(Error::invalid(format!("{name} is {other:?}: it is true or false"))),
        }
    }

    /// The agent, and whether TLS is spoken with it.
    pub(crate) fn agent(&self, default_port: u16) -> Result<(Target, bool)> {
        let secure = self.flag(SSL)?.unwrap_or(false);
        let Some(value) = self.get(ADDR) else {
            return Ok((Target::Tcp(Address::new("127.0.0.1", u32::from(default_port))?), secure));
        };
        if value.contains('@') {
            // It may be a password, which is not to be shown.
            return Err(Error::invalid(format!(
                "{ADDR} has an '@': an agent has no user; {TOKEN} is for the token"
            )));
        }
        let (scheme, host) = value.split_once("://").unwrap_or(("", &value));
        let secure = match scheme {
            "" => secure,
            "http" => false,
            "https" => true,
            "unix" => return Ok((Target::Unix(host.into()), false)),
            _ => {
                return Err(Error::invalid(format!(
                    "{ADDR} is {value:?}: an agent is host:port, http://host:port, https://host:port or unix:///path"
                )));
            }
        };
        let address = Address::with_default_port(host.trim_end_matches('/'), default_port)
            .map_err(|error| error.context(ADDR))?;
        Ok((Target::Tcp(address), secure))
    }

    /// Fills in what a builder has not been told.
    pub(crate) fn complete(&self, builder: &mut Builder) -> Result<()> {
        if let Some(tls) = builder.access.tls.take() {
            builder.access.tls = Some(tls.or(self.tls()?));
        }
        if matches!(builder.token, Token::None) {
            // In the order of Consul's own tools.
            if let Some(file) = self.get(TOKEN_FILE) {
                builder.token = Token::File(file.into());
            }
            if let Some(token) = self.get(TOKEN) {
                builder.token = Token::Fixed(Secret::new(token));
            }
        }
        let place = &mut builder.place;
        place.namespace = place.namespace.take().or_else(|| self.get(NAMESPACE));
        place.partition = place.partition.take().or_else(|| self.get(PARTITION));
        Ok(())
    }

    fn tls(&self) -> Result<Tls> {
        let mut tls = Tls::default();
        if let Some(ca) = self.get(CA) {
            tls = tls.ca(Pem::file(ca));
        }
        match (self.get(CERT), self.get(KEY)) {
            (Some(cert), Some(key)) => tls = tls.identity(Pem::file(cert), Pem::file(key)),
            (None, None) => {}
            _ => return Err(Error::invalid(format!("one of {CERT} and {KEY} is set: each needs the other"))),
        }
        if let Some(name) = self.get(SERVER_NAME) {
            tls = tls.server_name(name);
        }
        if self.flag(SSL_VERIFY)? == Some(false) {
            tls = tls.insecure_skip_verify();
        }
        Ok(tls)
    }
}
