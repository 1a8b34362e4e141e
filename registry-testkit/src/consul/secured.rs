//! [`SecuredAgent`]: a Consul with TLS and access rules, as production has it.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::Consul;
use crate::consul::Api;
use crate::pki::{Identity, Pki};
use crate::proxy::Proxy;
use crate::server::Server;

/// What a program needs that registers `book` and finds whatever there is.
const ALL: &str = r#"service "book" { policy = "write" } service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
/// The same without what finding needs.
const NO_READING: &str = r#"service "book" { policy = "write" }"#;

/// An agent that is its datacenter's only server, speaks TLS, wants to see certificates of clients, and asks who they
/// are. It is reached through a link.
#[derive(Debug)]
pub struct SecuredAgent {
    /// Who signs everybody's certificates. That of the agent is called `server`, that of clients `client`.
    pub pki: Pki,
    /// The link to it.
    pub link: Proxy,
    server: Server<Consul>,
    client: Identity,
    folder: TempDir,
}

impl SecuredAgent {
    /// Starts it, with a token that may register `book` and find whatever there is.
    ///
    /// # Errors
    /// There is no Consul, or it cannot be started.
    pub async fn start(token: &str) -> io::Result<Self> {
        let pki = Pki::new()?;
        let mut server = Consul::secured_with_rules(&pki)?;
        server.start().await?;
        let link = Proxy::start(server.addr()).await?;
        let client = pki.issue("client", &["client"])?;
        let agent = Self { pki, link, server, client, folder: tempfile::tempdir()? };
        for (name, rules) in [("all", ALL), ("no-reading", NO_READING)] {
            agent.raw().put("acl/policy", &json!({ "Name": name, "Rules": rules })).await?;
        }
        agent.create(token).await?;
        agent.write_token(token)?;
        Ok(agent)
    }

    /// The URL of a registry in it, with more of a query, the client's certificate and the file that has the token.
    #[must_use]
    pub fn url(&self, query: &str) -> String {
        format!(
            "consul+tls://{}/?ca={}&cert={}&key={}&token_file={}&{query}",
            self.link.addr(),
            self.pki.ca().display(),
            self.client.cert.display(),
            self.client.key.display(),
            self.token_file().display()
        )
    }

    /// Raw access, past the link and with all rights.
    #[must_use]
    pub fn raw(&self) -> Api {
        Consul::raw(&self.server)
    }

    /// Lets a token find what there is, or not; it may register in either case.
    ///
    /// # Errors
    /// The agent does not answer.
    pub async fn permit(&self, token: &str, may: bool) -> io::Result<()> {
        let policy = if may { "all" } else { "no-reading" };
        self.raw().put(&format!("acl/token/{}", accessor(token)), &described(token, policy)).await.map(drop)
    }

    /// Makes a token of the same rights.
    ///
    /// # Errors
    /// The agent does not answer.
    pub async fn create(&self, token: &str) -> io::Result<()> {
        self.raw().put("acl/token", &described(token, "all")).await.map(drop)
    }

    /// Deletes a token.
    ///
    /// # Errors
    /// The agent does not answer.
    pub async fn delete(&self, token: &str) -> io::Result<()> {
        self.raw().remove(&format!("acl/token/{}", accessor(token))).await.map(drop)
    }

    /// Changes the token that clients read.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_token(&self, token: &str) -> io::Result<()> {
        std::fs::write(self.token_file(), format!("{token}\n"))
    }

    /// Lets the agent read its certificate anew, and breaks all connections that were made with the old one.
    ///
    /// # Errors
    /// The agent does not answer.
    pub async fn reload(&self) -> io::Result<()> {
        self.raw().put("agent/reload", &Value::Null).await?;
        self.link.reset();
        Ok(())
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }
}

fn described(token: &str, policy: &str) -> Value {
    json!({ "AccessorID": accessor(token), "SecretID": token, "Policies": [{ "Name": policy }] })
}

/// A token's public name, by which it is changed.
fn accessor(token: &str) -> String {
    token.replace("-8000-", "-9000-")
}
