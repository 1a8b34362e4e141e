//! Snapshots as JSON, one object a line, in an order of fields that stays: [`line()`]. It is written as it is made, so
//! that 10,000 instances take no memory of their own.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

use callsign::{Freshness, Listed, Snapshot};
use serde::{Serialize, Serializer};

/// Writes one snapshot as a line, and sends it off.
pub(crate) fn line(mut out: impl Write, at: SystemTime, snapshot: &Snapshot) -> io::Result<()> {
    let line = Line {
        at: Time(at),
        service: snapshot.service().as_str(),
        revision: snapshot.revision(),
        freshness: state(snapshot.freshness()),
        instances: Instances(snapshot),
    };
    serde_json::to_writer(&mut out, &line)?;
    out.write_all(b"\n")?;
    out.flush()
}

#[derive(Serialize)]
struct Line<'a> {
    at: Time,
    service: &'a str,
    revision: u64,
    freshness: State,
    instances: Instances<'a>,
}

/// A time as RFC 3339 has it, in UTC.
pub(crate) struct Time(pub(crate) SystemTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(self.0))
    }
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum State {
    Pending {
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    Fresh,
    Stale {
        since: Time,
        error: String,
    },
}

fn state(freshness: &Freshness) -> State {
    match freshness {
        Freshness::Pending { error } => State::Pending { error: error.as_ref().map(callsign::Error::chain) },
        Freshness::Fresh => State::Fresh,
        Freshness::Stale { since, error } => State::Stale { since: Time(*since), error: error.chain() },
    }
}

struct Instances<'a>(&'a Snapshot);

impl Serialize for Instances<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(instance))
    }
}

#[derive(Serialize)]
struct Instance<'a> {
    id: &'a str,
    address: String,
    state: &'static str,
    held: bool,
    weight: u32,
    zone: Option<&'a str>,
    version: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
}

fn instance(listed: &Listed) -> Instance<'_> {
    Instance {
        id: listed.id().as_str(),
        address: listed.address().to_string(),
        state: listed.state().as_str(),
        held: listed.is_held(),
        weight: listed.weight(),
        zone: listed.zone(),
        version: listed.version(),
        metadata: listed.metadata(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use callsign::Instance;

    use super::*;
    use crate::testing::snapshot;

    fn lined(snapshot: &Snapshot) -> String {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_442_400_123);
        let mut out = Vec::new();
        line(&mut out, at, snapshot).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn golden() {
        let plain = Instance::new("book", "127.0.0.1:50051").unwrap();
        let full = Instance::new("book", "[::1]:50052").unwrap().with_id("two \"2\"").unwrap();
        let full = full.with_state(callsign::State::Draining).with_weight(7).with_zone("eu-1").unwrap();
        let full = full.with_version("1.2").unwrap().with_metadata("a", "b\n\u{1b}").unwrap();
        let snapshot = snapshot("book", vec![plain, full]).await;
        let expected = concat!(
            r#"{"at":"2026-11-23T14:00:00.123Z","service":"book","revision":"#,
            "REVISION",
            r#","freshness":{"state":"fresh"},"instances":["#,
            r#"{"id":"127.0.0.1:50051","address":"127.0.0.1:50051","state":"up","held":false,"weight":1,"#,
            r#""zone":null,"version":null,"metadata":{}},"#,
            r#"{"id":"two \"2\"","address":"[::1]:50052","state":"draining","held":false,"weight":7,"#,
            r#""zone":"eu-1","version":"1.2","metadata":{"a":"b\n\u001b"}}]}"#,
            "\n"
        );
        assert_eq!(lined(&snapshot), expected.replace("REVISION", &snapshot.revision().to_string()));
    }

    #[test]
    fn an_outage_is_a_state() {
        let error = callsign::Error::new(callsign::ErrorKind::Unavailable, "etcd is down");
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let json = |freshness| serde_json::to_string(&state(&freshness)).unwrap();
        assert_eq!(
            json(Freshness::Stale { since, error: error.clone() }),
            r#"{"state":"stale","since":"1970-01-01T00:00:01.000Z","error":"etcd is down"}"#
        );
        assert_eq!(json(Freshness::Pending { error: None }), r#"{"state":"pending"}"#);
        assert_eq!(
            json(Freshness::Pending { error: Some(error) }),
            r#"{"state":"pending","error":"etcd is down"}"#
        );
    }
}
