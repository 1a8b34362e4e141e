//! [`Check`]: how Consul knows that an instance lives, and what an agent is told of that.

use std::str::FromStr;
use std::time::Duration;

use callsign_core::{Address, Error, Instance, Result};
use serde::Serialize;

/// The least that Consul takes for removing what is dead. It should outlast any outage that may be mended.
const REAP: Duration = Duration::from_secs(600);
/// The least time between two looks of an agent.
const LOOK: Duration = Duration::from_secs(1);

/// How Consul knows that an instance lives: always by its owner's word, which comes in time or is missed, and by the
/// agent's own look at it where that is wanted.
///
/// What an agent looks at is the address that the instance is registered with, three times within a TTL. An instance
/// that its agent cannot reach is listed no more; it stays registered, and is listed again once it is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// By its owner's word alone.
    #[default]
    Ttl,
    /// The agent also connects to it.
    Tcp,
    /// The agent also asks for the health of this service, or of the whole server if it is empty, by gRPC's [health
    /// protocol](https://github.com/grpc/grpc/blob/master/doc/health-checking.md). Over TLS where the instance's
    /// protocol is `grpcs`; whose the certificate is does not matter then.
    Grpc(String),
    /// The agent also asks for this path by HTTP, and takes what is no success for a failure. Over TLS where the
    /// instance's protocol is `https`, as with gRPC.
    Http(String),
}

impl FromStr for Check {
    type Err = Error;

    /// From `ttl`, `tcp`, `grpc`, `grpc:SERVICE` or `http:/PATH`.
    fn from_str(text: &str) -> Result<Self> {
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        match (kind, rest) {
            ("ttl", None) => Ok(Self::Ttl),
            ("tcp", None) => Ok(Self::Tcp),
            ("grpc", service) => Ok(Self::Grpc(service.unwrap_or_default().to_owned())),
            ("http", Some(path)) if path.starts_with('/') => Ok(Self::Http(path.to_owned())),
            _ => Err(Error::invalid(format!(
                "check {text:?}: it is one of ttl, tcp, grpc, grpc:SERVICE and http:/PATH"
            ))),
        }
    }
}

/// A check as an agent is told of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Definition {
    #[serde(rename = "CheckID")]
    id: String,
    name: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    notes: String,
    deregister_critical_service_after: String,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(flatten)]
    look: Option<Look>,
}

/// What an agent does by itself.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Look {
    interval: String,
    timeout: String,
    #[serde(rename = "TCP", skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    #[serde(rename = "GRPC", skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    #[serde(rename = "GRPCUseTLS")]
    grpc_use_tls: bool,
    #[serde(rename = "HTTP", skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    #[serde(rename = "TLSSkipVerify")]
    tls_skip_verify: bool,
}

fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// The checks of an instance; `beat` is the id and `status` the state of that which is its owner's word. How often the
/// agent has to be told `again` what it has makes each of them another: what it has it takes for told to the catalog.
pub(crate) fn definitions(
    check: &Check,
    instance: &Instance,
    beat: &str,
    status: &'static str,
    ttl: Duration,
    again: u32,
) -> Vec<Definition> {
    let notes = if again > 0 { format!("told again, {again}") } else { String::new() };
    let reap = format!("{}s", REAP.max(ttl * 10).as_secs());
    let word = Definition {
        id: beat.to_owned(),
        name: "Alive by callsign",
        status,
        notes: notes.clone(),
        deregister_critical_service_after: reap.clone(),
        ttl: Some(millis(ttl)),
        look: None,
    };
    let Some(look) = look(check, instance, ttl) else { return vec![word] };
    let seen = Definition {
        id: format!("callsign-look:{beat}"),
        name: "Reached by its agent",
        // Its owner says that it serves, which holds until the agent has looked.
        status: "passing",
        notes,
        deregister_critical_service_after: reap,
        ttl: None,
        look: Some(look),
    };
    vec![word, seen]
}

fn look(check: &Check, instance: &Instance, ttl: Duration) -> Option<Look> {
    let address: &Address = instance.address();
    let every = millis((ttl / 3).max(LOOK));
    let mut look = Look { interval: every.clone(), timeout: every, ..Look::default() };
    match check {
        Check::Ttl => return None,
        Check::Tcp => look.tcp = Some(address.to_string()),
        Check::Grpc(service) => {
            let separator = if service.is_empty() { "" } else { "/" };
            look.grpc = Some(format!("{address}{separator}{service}"));
            look.grpc_use_tls = instance.protocol() == Some("grpcs");
            look.tls_skip_verify = look.grpc_use_tls;
        }
        Check::Http(path) => {
            look.tls_skip_verify = instance.protocol() == Some("https");
            let scheme = if look.tls_skip_verify { "https" } else { "http" };
            look.http = Some(format!("{scheme}://{address}{path}"));
        }
    }
    Some(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_what_is_wrong_is_named() {
        for (text, check) in [
            ("ttl", Check::Ttl),
            ("tcp", Check::Tcp),
            ("grpc", Check::Grpc(String::new())),
            ("grpc:books.Books", Check::Grpc("books.Books".to_owned())),
            ("http:/health?full=1", Check::Http("/health?full=1".to_owned())),
        ] {
            assert_eq!(text.parse::<Check>().unwrap(), check);
        }
        for text in ["", "script:rm", "http", "http:health", "tcp:1", "TTL"] {
            let error = text.parse::<Check>().unwrap_err().to_string();
            assert!(error.contains("http:/PATH") && error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn an_agent_is_told_where_to_look() {
        let ttl = Duration::from_secs(15);
        let plain = Instance::new("book", "[::1]:50051").unwrap();
        let secure = plain.clone().with_protocol("grpcs").unwrap();
        let again = |check: &str, instance: &Instance, again| {
            let told = definitions(&check.parse().unwrap(), instance, "callsign:m", "passing", ttl, again);
            serde_json::to_value(told).unwrap()
        };
        let json = |check: &str, instance: &Instance| again(check, instance, 0);
        assert_eq!(
            json("ttl", &plain),
            serde_json::json!([{
                "CheckID": "callsign:m", "Name": "Alive by callsign", "Status": "passing", "TTL": "15000ms",
                "DeregisterCriticalServiceAfter": "600s",
            }])
        );
        let told = json("grpc:books.Books", &secure);
        assert_eq!(told[1]["GRPC"], "[::1]:50051/books.Books");
        assert_eq!((&told[1]["GRPCUseTLS"], &told[1]["Interval"]), (&true.into(), &"5000ms".into()));
        assert_eq!(json("tcp", &plain)[1]["TCP"], "[::1]:50051");
        assert_eq!(json("http:/h", &plain)[1]["HTTP"], "http://[::1]:50051/h");
        for n in 0..2 {
            assert_ne!(again("tcp", &plain, 1)[n], again("tcp", &plain, 2)[n], "or the catalog is not told");
        }
    }
}
