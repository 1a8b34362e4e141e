//! [`Environment`]: what Consul's own tools are told by variables, for whatever a URL does not say.

use callsign_core::{Address, Result, Secret, Target, TlsVariables, Variables};

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

const TLS: TlsVariables =
    TlsVariables { ca: CA, cert: CERT, key: KEY, server_name: Some(SERVER_NAME), verify: (SSL_VERIFY, true) };

/// The variables, where the URL has the first word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Environment<'a>(pub(crate) Variables<'a>);

impl Environment<'_> {
    /// The agent, and whether TLS is spoken with it.
    pub(crate) fn agent(&self, default_port: u16) -> Result<(Target, bool)> {
        let secure = self.0.flag(SSL)?.unwrap_or(false);
        let Some(value) = self.0.get(ADDR) else {
            return Ok((Target::Tcp(Address::new("127.0.0.1", u32::from(default_port))?), secure));
        };
        if let Some(path) = value.strip_prefix("unix://") {
            return Ok((Target::Unix(path.into()), false));
        }
        let (address, tls) = Variables::server(ADDR, &value, default_port)?;
        Ok((Target::Tcp(address), tls.unwrap_or(secure)))
    }

    /// Fills in what a builder has not been told.
    pub(crate) fn complete(&self, builder: &mut Builder) -> Result<()> {
        if let Some(tls) = builder.access.tls.take() {
            builder.access.tls = Some(tls.or(self.0.tls(TLS)?));
        }
        if matches!(builder.token, Token::None) {
            // In the order of Consul's own tools.
            if let Some(file) = self.0.get(TOKEN_FILE) {
                builder.token = Token::File(file.into());
            }
            if let Some(token) = self.0.get(TOKEN) {
                builder.token = Token::Fixed(Secret::new(token));
            }
        }
        let place = &mut builder.place;
        place.namespace = place.namespace.take().or_else(|| self.0.get(NAMESPACE));
        place.partition = place.partition.take().or_else(|| self.0.get(PARTITION));
        Ok(())
    }
}
