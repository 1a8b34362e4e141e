//! [`Ask`]: what a server is asked, and [`Answered`]: what it answers.

use std::io::Read;

use bytes::Bytes;
use callsign_core::HttpAnswer;
use flate2::read::GzDecoder;
use http::Method;
use http::header::CONTENT_ENCODING;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

/// What may stand in a segment of a path, or in a query's value, as it is.
const AS_IT_IS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The largest list that is taken in: some hundred thousand instances.
const MOST: usize = 128 << 20;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Below the base path, with its query.
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) list: bool,
    /// A list of all there is, which a server may refuse that was just started.
    pub(crate) whole: bool,
}

impl Ask {
    /// From segments below the base path, which are escaped.
    pub(crate) fn new(method: Method, segments: &[&str]) -> Self {
        let segments = segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, AS_IT_IS)));
        Self { method, path: segments.collect(), body: Bytes::new(), list: false, whole: false }
    }

    pub(crate) fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    /// With one more pair in the query.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(key);
        self.path.push('=');
        self.path.extend(utf8_percent_encode(value, AS_IT_IS));
        self
    }

    pub(crate) fn body(mut self, body: Vec<u8>) -> Self {
        self.body = body.into();
        self
    }

    /// One that may take its time, and takes turns with others such alone: renewals must not wait for it.
    pub(crate) fn list(self) -> Self {
        Self { list: true, whole: true, ..self }
    }

    /// The same for what has changed since, which some servers never tell.
    pub(crate) fn changes(self) -> Self {
        Self { list: true, ..self }
    }
}

/// An answer, and by which server.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub(crate) answer: HttpAnswer,
    pub(crate) by: usize,
    /// When this server was asked, after any that were of no use.
    pub(crate) asked: Instant,
}

impl Answered {
    pub(crate) fn is_absent(&self) -> bool {
        self.answer.status.as_u16() == 404
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin { server: self.by, since: self.answer.unbroken_since }
    }
}

/// By whom something was answered, and since when no connection with it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) server: usize,
    pub(crate) since: Instant,
}

/// An answer as it was before it was compressed.
///
/// # Errors
/// Why it cannot be had.
pub(crate) fn inflated(mut answer: HttpAnswer) -> Result<HttpAnswer, String> {
    let gzip =
        answer.headers.get(CONTENT_ENCODING).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"gzip"));
    if !gzip || answer.body.is_empty() {
        return Ok(answer);
    }
    let mut text = Vec::with_capacity(answer.body.len().saturating_mul(8).min(MOST));
    // One more than there may be tells that there is more.
    let read = GzDecoder::new(&*answer.body).take(MOST as u64 + 1).read_to_end(&mut text);
    read.map_err(|error| format!("it cannot be decompressed: {error}"))?;
    if text.len() > MOST {
        return Err(format!("it cannot be decompressed: it has more than {MOST} bytes"));
    }
    answer.body = text.into();
    Ok(answer)
}
