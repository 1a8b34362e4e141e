//! [`Api`]: raw access to a Eureka server, so that nothing of our own backend is trusted.

use std::io;
use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::http::{Answer, exchange};

/// Below it are the applications.
pub const BASE: &str = "/eureka";

/// What may stand in a path as it is: servers refuse a dot that is escaped.
const AS_IT_IS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// Calls to one server.
#[derive(Debug, Clone)]
pub struct Api {
    addr: SocketAddr,
    user: Option<(String, String)>,
}

impl Api {
    /// Calls to the server at `addr`.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, user: None }
    }

    /// The same calls as somebody.
    #[must_use]
    pub fn with_user(&self, user: &str, password: &str) -> Self {
        Self { addr: self.addr, user: Some((user.to_owned(), password.to_owned())) }
    }

    /// Whether it serves.
    pub async fn is_ready(&self) -> bool {
        self.call("GET", "apps/delta", None).await.is_ok_and(|answer| answer.status < 500)
    }

    /// Sends a request below the base path, with a body of JSON if there is one, and returns the answer whatever its status.
    ///
    /// # Errors
    /// No answer.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
        let mut headers = "Accept: application/json\r\n".to_owned();
        if body.is_some() {
            headers.push_str("Content-Type: application/json\r\n");
        }
        if let Some((user, password)) = &self.user {
            let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
            headers.push_str(&format!("Authorization: Basic {pair}\r\n"));
        }
        let body = body.map_or(String::new(), Value::to_string);
        exchange(self.addr, (method, &format!("{BASE}/{path}")), &headers, body.as_bytes()).await
    }

    /// The same, where only a success is an answer.
    ///
    /// # Errors
    /// No answer, or one that is no success.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Value> {
        let answer = self.call(method, path, body).await?;
        if !(200..300).contains(&answer.status) {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(io::Error::other(format!("Eureka's {path}: {}: {said}", answer.status)));
        }
        Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// All instances of an application.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn instances(&self, app: &str) -> io::Result<Vec<Value>> {
        let answer = self.call("GET", &format!("apps/{app}"), None).await?;
        match answer.status {
            404 => Ok(Vec::new()),
            200 => {
                let app: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
                Ok(app["application"]["instance"].as_array().cloned().unwrap_or_default())
            }
            status => Err(io::Error::other(format!("Eureka's {app}: {status}"))),
        }
    }

    /// Those of them that have not expired: a list has them until they are swept.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn alive(&self, app: &str) -> io::Result<Vec<Value>> {
        let mut alive = Vec::new();
        for instance in self.instances(app).await? {
            let id = instance["instanceId"].as_str().or(instance["hostName"].as_str()).unwrap_or_default();
            if self.call("GET", &path(app, id), None).await?.status == 200 {
                alive.push(instance);
            }
        }
        Ok(alive)
    }

    /// Registers an instance, which lives for a minute or until it is renewed.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn register(&self, app: &str, id: &str, host: &str, port: i64, more: &Value) -> io::Result<()> {
        let app = app.to_uppercase();
        let mut instance = json!({
            "instanceId": id, "app": app, "hostName": host, "ipAddr": host, "vipAddress": app.to_lowercase(),
            "port": { "$": port, "@enabled": "true" }, "securePort": { "$": 443, "@enabled": "false" },
            "status": "UP", "metadata": {},
            "leaseInfo": { "renewalIntervalInSecs": 600, "durationInSecs": 600 },
            "dataCenterInfo": {
                "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn",
            },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            instance[key] = value.clone();
        }
        self.ask("POST", &format!("apps/{app}"), Some(&json!({ "instance": instance }))).await.map(drop)
    }

    /// Removes an instance, and says whether it was there.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn delete(&self, app: &str, id: &str) -> io::Result<bool> {
        let answer = self.call("DELETE", &path(app, id), None).await?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            status => Err(io::Error::other(format!("Eureka's {app}/{id}: {status}"))),
        }
    }
}

/// The path of an instance.
#[must_use]
pub fn path(app: &str, id: &str) -> String {
    format!("apps/{}/{}", app.to_uppercase(), utf8_percent_encode(id, AS_IT_IS))
}
