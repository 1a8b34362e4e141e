//! [`SecuredEureka`]: a Eureka with TLS of both sides.

use std::io;

use super::{BASE, Eureka};
use crate::pki::{Identity, Pki};
use crate::proxy::Proxy;
use crate::server::Server;

/// A server that speaks TLS and wants to see certificates of clients, reached through a link.
#[derive(Debug)]
pub struct SecuredEureka {
    /// Who signs everybody's certificates. That of the server is called `server`, that of clients `client`.
    pub pki: Pki,
    /// The link to it.
    pub link: Proxy,
    client: Identity,
    _server: Server<Eureka>,
}

impl SecuredEureka {
    /// Starts it.
    ///
    /// # Errors
    /// There is no Eureka, or it cannot be started.
    pub async fn start() -> io::Result<Self> {
        let pki = Pki::new()?;
        let mut server = Eureka::secured(&pki)?;
        server.start().await?;
        let link = Proxy::start(server.addr()).await?;
        let client = pki.issue("client", &["client"])?;
        Ok(Self { pki, link, client, _server: server })
    }

    /// The URL of a registry in it, with more of a query and the client's certificate.
    #[must_use]
    pub fn url(&self, query: &str) -> String {
        format!(
            "eureka+tls://{}{BASE}?ca={}&cert={}&key={}&{query}",
            self.link.addr(),
            self.pki.ca().display(),
            self.client.cert.display(),
            self.client.key.display(),
        )
    }
}
