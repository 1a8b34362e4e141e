//! [`Api`]: raw access to a Consul agent, so that nothing of our own backend is trusted.

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::http::exchange;

/// Calls to one agent.
#[derive(Debug, Clone)]
pub struct Api {
    addr: SocketAddr,
    token: Option<String>,
}

impl Api {
    /// Calls to the agent that serves at `addr`.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, token: None }
    }

    /// Where the agent serves.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same calls with an ACL token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { addr: self.addr, token: Some(token.to_owned()) }
    }

    /// Whether there is a leader, and its catalog can be written.
    pub async fn is_ready(&self) -> bool {
        let leader = self.get("status/leader").await;
        let nodes = self.get("catalog/nodes").await;
        let led = leader.is_ok_and(|leader| leader.as_str().is_some_and(|leader| !leader.is_empty()));
        led && nodes.is_ok_and(|nodes| nodes.as_array().is_some_and(|nodes| !nodes.is_empty()))
    }

    /// Reads below `/v1/`.
    ///
    /// # Errors
    /// No answer, or one that is no success.
    pub async fn get(&self, path: &str) -> io::Result<Value> {
        self.call("GET", path, "").await
    }

    /// Writes below `/v1/`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn put(&self, path: &str, body: &Value) -> io::Result<Value> {
        self.call("PUT", path, &body.to_string()).await
    }

    /// Sets something going, below `/v1/`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn post(&self, path: &str) -> io::Result<Value> {
        self.call("POST", path, "").await
    }

    /// Removes what is below `/v1/`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn remove(&self, path: &str) -> io::Result<Value> {
        self.call("DELETE", path, "").await
    }

    /// Registers a service as somebody else would, without a check.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn register(&self, service: &str, id: &str, host: &str, port: u16) -> io::Result<()> {
        let body = json!({ "ID": id, "Name": service, "Address": host, "Port": port });
        self.put("agent/service/register", &body).await.map(drop)
    }

    /// Deregisters a service of the agent.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn deregister(&self, id: &str) -> io::Result<()> {
        self.put(&format!("agent/service/deregister/{id}"), &Value::Null).await.map(drop)
    }

    /// Writes a service into the catalog itself, with a node of its own, past its agents.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn write(&self, node: &str, service: &str, host: &str, port: u16) -> io::Result<()> {
        let body = json!({ "Node": node, "Address": host, "Service": { "Service": service, "Port": port } });
        self.put("catalog/register", &body).await.map(drop)
    }

    /// Deletes such a node, with all that is on it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn delete(&self, node: &str) -> io::Result<()> {
        self.put("catalog/deregister", &json!({ "Node": node })).await.map(drop)
    }

    /// What the catalog has of a service and is not critical.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn alive(&self, service: &str) -> io::Result<Vec<Value>> {
        let entries = self.get(&format!("health/service/{service}")).await?;
        let is_alive = |entry: &&Value| {
            entry["Checks"]
                .as_array()
                .is_none_or(|checks| checks.iter().all(|check| check["Status"] != "critical"))
        };
        Ok(entries.as_array().into_iter().flatten().filter(is_alive).cloned().collect())
    }

    /// A copy of all that Consul has.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn snapshot(&self) -> io::Result<Vec<u8>> {
        self.exchange("GET", "snapshot", b"").await
    }

    /// Puts a copy in the place of all that Consul has.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn restore(&self, snapshot: &[u8]) -> io::Result<()> {
        self.exchange("PUT", "snapshot", snapshot).await.map(drop)
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> io::Result<Value> {
        let answer = self.exchange(method, path, body.as_bytes()).await?;
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    async fn exchange(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let token = self.token.as_ref().map_or(String::new(), |token| format!("X-Consul-Token: {token}\r\n"));
        let answer = exchange(self.addr, (method, &format!("/v1/{path}")), &token, body).await?;
        if answer.status != 200 {
            return Err(io::Error::other(format!(
                "Consul's {path}: {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            )));
        }
        Ok(answer.body)
    }
}
