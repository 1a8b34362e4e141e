//! [`Agent`]: what one agent is asked, and as whom.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callsign_core::{Error, ErrorKind, HttpAnswer, HttpClient, Result};
use http::{HeaderValue, Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::error::refusal;
use crate::token::Token;

/// What may stand in a segment of a path, or in a query's value, as it is.
const AS_IT_IS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Consul filters out what a token may not read, and says so in no other way.
const FILTERED: &str = "x-consul-results-filtered-by-acls";
/// How long ago the server that answered heard of its leader, in milliseconds.
const CONTACT: &str = "x-consul-lastcontact";
/// What is older is not taken for the state of things, whoever is content with old answers.
const OLDEST: Duration = Duration::from_secs(10);
const KNOWN_LEADER: &str = "x-consul-knownleader";
/// What who has no token may do.
const POLICY: &str = "x-consul-default-acl-policy";
/// How a query was answered: of those that are streamed to the agent it never says that it knows a leader.
const BACKEND: &str = "x-consul-query-backend";

/// Which part of Consul is meant, in every request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) datacenter: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) partition: Option<String>,
}

/// One agent: usually that of this machine.
#[derive(Clone)]
pub(crate) struct Agent(Arc<Inner>);

struct Inner {
    http: HttpClient,
    /// For lists, which take their time while there is no leader.
    lists: HttpClient,
    name: String,
    /// What stands before `/v1`, with no slash at its end.
    base: String,
    place: Place,
    token: Token,
    timeout: Duration,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

fn header<'a>(answer: &'a HttpAnswer, name: &str) -> Option<&'a str> {
    answer.headers.get(name)?.to_str().ok()
}

/// With whom a request takes turns.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turn {
    /// With all that is answered at once, as renewals are, which must not wait for anything else.
    Now,
    /// With other lists.
    List,
    /// With nobody: it is answered once something has changed, and within this time, by some bytes.
    Wait(Duration, usize),
}

/// A path and a query under construction.
#[derive(Debug)]
pub(crate) struct Path(String, char);

impl Path {
    /// From segments, which are escaped.
    pub(crate) fn new(segments: &[&str]) -> Self {
        let segments = segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, AS_IT_IS)));
        Self(segments.collect(), '?')
    }

    /// With one more pair in the query.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.0.push(self.1);
        self.0.push_str(key);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, AS_IT_IS));
        Self(self.0, '&')
    }

    fn with_some(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }
}

impl Agent {
    pub(crate) fn new(
        http: HttpClient,
        name: String,
        base: &str,
        place: Place,
        token: Token,
        timeout: Duration,
    ) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        let lists = http.apart();
        Self(Arc::new(Inner { http, lists, name, base, place, token, timeout }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn has_token(&self) -> bool {
        !matches!(self.0.token, Token::None)
    }

    /// The most that one exchange may take, unless it waits for a change.
    fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Asks, and returns the answer whatever its status.
    pub(crate) async fn ask(
        &self,
        what: &str,
        method: Method,
        path: Path,
        body: Bytes,
        turn: Turn,
    ) -> Result<HttpAnswer> {
        let Inner { http, lists, base, place, token, .. } = &*self.0;
        let path = path
            .with_some("dc", place.datacenter.as_deref())
            .with_some("ns", place.namespace.as_deref())
            .with_some("partition", place.partition.as_deref());
        let mut request = Request::builder().method(method).uri(format!("{base}/v1{}", path.0));
        if let Some(token) = token.read().await? {
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| {
                Error::invalid(
                    "the ACL token has characters that no HTTP header may have: it is text of one line",
                )
            })?;
            value.set_sensitive(true);
            request = request.header("x-consul-token", value);
        }
        let request = request
            .body(body)
            .map_err(|error| Error::invalid(format!("the path of the {what}")).with_source(error))?;
        let answer = match turn {
            Turn::Now => http.send(what, request, self.timeout()).await,
            Turn::List => lists.send(what, request, self.timeout()).await,
            Turn::Wait(within, bytes) => http.send_and_wait(what, request, within, bytes).await,
        };
        answer.map_err(|error| error.context("Consul's agent"))
    }

    /// Reads: an answer that is no success is an error.
    pub(crate) async fn get(&self, what: &str, path: Path) -> Result<HttpAnswer> {
        let answer = self.ask(what, Method::GET, path, Bytes::new(), Turn::Now).await?;
        self.checked(what, answer)
    }

    /// Writes.
    pub(crate) async fn put(&self, what: &str, path: Path, body: &impl Serialize) -> Result<HttpAnswer> {
        let body = serde_json::to_vec(body).map_err(|error| {
            Error::invalid(format!("the {what} cannot be written as JSON")).with_source(error)
        })?;
        self.ask(what, Method::PUT, path, body.into(), Turn::Now).await
    }

    /// The answer, if it is a success.
    pub(crate) fn checked(&self, what: &str, answer: HttpAnswer) -> Result<HttpAnswer> {
        if answer.status.is_success() {
            return Ok(answer);
        }
        let error = refusal(what, self.name(), &answer);
        Err(match &self.0.place.datacenter {
            Some(datacenter) => error.context(format_args!("datacenter {datacenter:?}").to_string()),
            None => error,
        })
    }

    /// The same, if nothing was left out because we may not read it, and it is new enough: there is a leader who knows
    /// better than the server that answered, or there was one a moment ago if what is old `suffices`. What is streamed
    /// to the agent says nothing of that.
    pub(crate) fn complete(&self, what: &str, answer: HttpAnswer, suffices: bool) -> Result<HttpAnswer> {
        let answer = self.unfiltered(what, answer)?;
        if header(&answer, BACKEND) != Some("streaming") {
            self.is_led(what, &answer, suffices)?;
        }
        Ok(answer)
    }

    /// Whether an answer is of a server that has a leader, or has had one a moment ago if that `suffices`.
    pub(crate) fn is_led(&self, what: &str, answer: &HttpAnswer, suffices: bool) -> Result<()> {
        let contact =
            header(answer, CONTACT).and_then(|millis| millis.parse().ok()).map(Duration::from_millis);
        let is_led = match suffices {
            false => header(answer, KNOWN_LEADER) != Some("false"),
            true => contact.is_none_or(|contact| contact <= OLDEST),
        };
        if is_led {
            return Ok(());
        }
        let since = if suffices { format!(" for more than {}s", OLDEST.as_secs()) } else { String::new() };
        let text = format!("agent {}, {what}: its servers have no leader{since}", self.name());
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    fn unfiltered(&self, what: &str, answer: HttpAnswer) -> Result<HttpAnswer> {
        let answer = self.checked(what, answer)?;
        if header(&answer, FILTERED) == Some("true") {
            let text = format!(
                "agent {}, {what}: Consul leaves out what the ACL token may not read; it needs service:read and node:read",
                self.name()
            );
            return Err(Error::new(ErrorKind::PermissionDenied, text));
        }
        Ok(answer)
    }

    /// Whether an answer may be empty because who has no token may not read: Consul says so to nobody else.
    pub(crate) fn shuts_out(&self, answer: &HttpAnswer) -> bool {
        let denies = header(answer, POLICY) == Some("deny");
        denies && !self.has_token() && matches!(answer.body.trim_ascii(), b"[]" | b"{}" | b"null")
    }

    pub(crate) fn shut_out(&self, what: &str) -> Error {
        let text = format!("agent {}, {what}: Consul shows nothing to who has no ACL token", self.name());
        Error::new(ErrorKind::PermissionDenied, text)
    }

    /// An answer's JSON.
    pub(crate) fn parsed<'a, T: Deserialize<'a>>(&self, what: &str, answer: &'a HttpAnswer) -> Result<T> {
        serde_json::from_slice(&answer.body).map_err(|error| self.malformed(what, error))
    }

    pub(crate) fn malformed(&self, what: &str, error: serde_json::Error) -> Error {
        let text = format!("agent {}, {what}: this is no answer of Consul", self.name());
        Error::new(ErrorKind::Malformed, text).with_source(error)
    }
}
