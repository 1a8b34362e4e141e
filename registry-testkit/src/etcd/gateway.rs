//! [`Gateway`]: raw access to etcd, by its JSON gateway, so that nothing of our own backend is trusted.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The most that one call may take.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// etcd takes at most 128 operations in one transaction.
const OPS: usize = 100;

/// One key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The lease that it lives by; 0 for none.
    pub lease: i64,
    /// How often it has been written since it was created.
    pub version: i64,
    /// When it was created, as a revision.
    pub create_revision: i64,
}

/// Calls to one etcd.
#[derive(Debug, Clone)]
pub struct Gateway {
    addr: SocketAddr,
    /// Whom etcd takes us for, once it asks.
    token: Option<String>,
}

pub(super) fn other(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

/// The gateway writes 64-bit numbers as strings.
pub(super) fn number(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_i64()).unwrap_or(0)
}

impl Gateway {
    /// Calls to the etcd that serves at `addr`.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, token: None }
    }

    /// Where the calls go.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same calls as a user.
    ///
    /// # Errors
    /// As [`put`](Self::put): the password is wrong, among others.
    pub async fn login(&self, user: &str, password: &str) -> io::Result<Self> {
        // As nobody: a token that has expired would be refused first.
        let nobody = Self::new(self.addr);
        let body = nobody.call("auth/authenticate", &json!({ "name": user, "password": password })).await?;
        Ok(Self { addr: self.addr, token: body["token"].as_str().map(str::to_owned) })
    }

    /// Whether it says that it is healthy.
    pub async fn healthy(&self) -> bool {
        let answer = self.exchange("GET /health HTTP/1.0\r\n\r\n".as_bytes()).await;
        answer.is_ok_and(|body| body["health"] == "true")
    }

    /// Writes a key, with a lease or without (0).
    ///
    /// # Errors
    /// It is refused, or not answered within 20 s.
    pub async fn put(&self, key: &str, value: &[u8], lease: i64) -> io::Result<()> {
        self.call("kv/put", &put(key, value, lease)).await.map(drop)
    }

    /// Writes many keys, in as few transactions as etcd takes.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_many(&self, entries: &[(String, Vec<u8>)], lease: i64) -> io::Result<()> {
        for some in entries.chunks(OPS) {
            let puts: Vec<_> = some.iter().map(|(k, v)| json!({ "requestPut": put(k, v, lease) })).collect();
            self.call("kv/txn", &json!({ "success": puts })).await?;
        }
        Ok(())
    }

    /// Everything below a prefix; everything there is, if it is empty.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn list(&self, prefix: &str) -> io::Result<Vec<Entry>> {
        let body = self.call("kv/range", &range(prefix)).await?;
        let bytes =
            |value: &Value| BASE64.decode(value.as_str().unwrap_or_default()).map_err(io::Error::other);
        body["kvs"]
            .as_array()
            .unwrap_or(&Vec::new())
            .iter()
            .map(|kv| {
                Ok(Entry {
                    key: String::from_utf8_lossy(&bytes(&kv["key"])?).into_owned(),
                    value: bytes(&kv["value"])?,
                    lease: number(&kv["lease"]),
                    version: number(&kv["version"]),
                    create_revision: number(&kv["create_revision"]),
                })
            })
            .collect()
    }

    /// How many keys there are below a prefix.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn count(&self, prefix: &str) -> io::Result<usize> {
        let mut request = range(prefix);
        request["count_only"] = json!(true);
        let body = self.call("kv/range", &request).await?;
        usize::try_from(number(&body["count"])).map_err(io::Error::other)
    }

    /// Deletes everything below a prefix, and returns how much it was.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn delete_prefix(&self, prefix: &str) -> io::Result<i64> {
        Ok(number(&self.call("kv/deleterange", &range(prefix)).await?["deleted"]))
    }

    /// Deletes one key.
    ///
    /// # Errors
    /// As [`put`](Self::put), or it is not there.
    pub async fn delete(&self, key: &str) -> io::Result<()> {
        let body = self.call("kv/deleterange", &json!({ "key": BASE64.encode(key) })).await?;
        if number(&body["deleted"]) == 1 { Ok(()) } else { Err(other(format!("there is no key {key}"))) }
    }

    /// Ends a lease, and with it all of its keys.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn revoke(&self, lease: i64) -> io::Result<()> {
        self.call("lease/revoke", &json!({ "ID": lease.to_string() })).await.map(drop)
    }

    /// A lease of so many seconds.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn grant(&self, seconds: i64) -> io::Result<i64> {
        let body = self.call("lease/grant", &json!({ "TTL": seconds.to_string() })).await?;
        Ok(number(&body["ID"]))
    }

    /// Renews a lease, once.
    ///
    /// # Errors
    /// As [`put`](Self::put), or it is not there.
    pub async fn keep_alive(&self, lease: i64) -> io::Result<()> {
        let body = self.call("lease/keepalive", &json!({ "ID": lease.to_string() })).await?;
        if number(&body["result"]["TTL"]) > 0 {
            Ok(())
        } else {
            Err(other(format!("there is no lease {lease}")))
        }
    }

    /// The leases that there are, sorted.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn leases(&self) -> io::Result<Vec<i64>> {
        let body = self.call("lease/leases", &json!({})).await?;
        let leases = body["leases"].as_array().map_or(&[][..], Vec::as_slice);
        let mut ids: Vec<_> = leases.iter().map(|lease| number(&lease["ID"])).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Its version.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn version(&self) -> io::Result<String> {
        let body = self.call("maintenance/status", &json!({})).await?;
        Ok(body["version"].as_str().unwrap_or_default().to_owned())
    }

    /// Which member it is, and which it takes for the leader, by their ids; a member that knows of none says so.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn leader(&self) -> io::Result<(String, Option<String>)> {
        let body = self.call("maintenance/status", &json!({})).await?;
        let id = |value: &Value| value.as_str().filter(|id| *id != "0").map(str::to_owned);
        let own = id(&body["header"]["member_id"]).ok_or_else(|| other("a member without an id"))?;
        Ok((own, id(&body["leader"])))
    }

    /// The present revision.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn revision(&self) -> io::Result<i64> {
        let body =
            self.call("kv/range", &json!({ "key": BASE64.encode("none"), "count_only": true })).await?;
        Ok(number(&body["header"]["revision"]))
    }

    /// Forgets all history before the present revision.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn compact(&self) -> io::Result<i64> {
        let revision = self.revision().await?;
        self.call("kv/compaction", &json!({ "revision": revision.to_string(), "physical": true })).await?;
        Ok(revision)
    }

    pub(super) async fn call(&self, path: &str, body: &Value) -> io::Result<Value> {
        self.exchange(self.request(path, body).as_bytes())
            .await
            .map_err(|error| other(format!("etcd's {path}: {error}")))
    }

    pub(super) fn request(&self, path: &str, body: &Value) -> String {
        let body = body.to_string();
        // Version 1.0, so that the answer ends with the connection and comes in one piece.
        let token = self.token.as_ref().map_or(String::new(), |token| format!("Authorization: {token}\r\n"));
        let head = format!("POST /v3/{path} HTTP/1.0\r\n{token}Content-Length: {}\r\n\r\n", body.len());
        head + &body
    }

    async fn exchange(&self, request: &[u8]) -> io::Result<Value> {
        let answer = async {
            let mut stream = TcpStream::connect(self.addr).await?;
            stream.write_all(request).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer =
            timeout(ANSWER, answer).await.map_err(|_| other(format!("no answer within {ANSWER:?}")))??;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| other("no HTTP answer"))?;
        if head.split(' ').nth(1) != Some("200") {
            return Err(other(format!("{}: {body}", head.lines().next().unwrap_or_default())));
        }
        serde_json::from_str(body).map_err(io::Error::other)
    }
}

fn put(key: &str, value: &[u8], lease: i64) -> Value {
    json!({ "key": BASE64.encode(key), "value": BASE64.encode(value), "lease": lease.to_string() })
}

pub(super) fn range(prefix: &str) -> Value {
    if prefix.is_empty() {
        // Zeros mean: from the first key on, without end.
        return json!({ "key": BASE64.encode([0]), "range_end": BASE64.encode([0]) });
    }
    json!({ "key": BASE64.encode(prefix), "range_end": BASE64.encode(end_of(prefix)) })
}

/// The first key behind a prefix. Prefixes here are ASCII and end in a slash.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
