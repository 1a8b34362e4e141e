//! One exchange over a connection of a [`Pool`].

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::pool::{Connection, Pool};
use super::{HttpAnswer, Target};
use crate::error::{Error, ErrorKind, Result};

/// The largest answer that is taken in: some ten thousand instances with all of their metadata.
const MOST: usize = 256 << 20;

impl Pool {
    /// Sends a request and reads all of its answer, which may have some `bytes` and is to begin within `head`. Who
    /// `insists` is not told that the server closed a kept connection meanwhile: what only asks is asked once more.
    pub(super) async fn exchange(
        &self,
        what: &str,
        request: Request<Bytes>,
        bytes: usize,
        insists: bool,
        head: Duration,
    ) -> Result<HttpAnswer> {
        let begun = timeout(head, self.begin(what, request, insists)).await;
        let (answer, connection) = begun.unwrap_or_else(|_| Err(self.late(what, head)))?;
        self.read(what, answer, connection, bytes).await
    }

    /// Sends a request, and waits for its answer to begin.
    async fn begin(
        &self,
        what: &str,
        request: Request<Bytes>,
        insists: bool,
    ) -> Result<(Response<Incoming>, Connection)> {
        let mut request = request.map(Full::new);
        let host = match self.server() {
            Target::Tcp(address) => HeaderValue::try_from(address.to_string()).map_err(|error| {
                Error::invalid(format!("{address} cannot be the host of a URL")).with_source(error)
            })?,
            Target::Unix(_) => HeaderValue::from_static("localhost"),
        };
        request.headers_mut().insert(HOST, host);
        let asks = request.method() == Method::GET;
        let mut connection = self.get().await.map_err(|error| self.unreached(&error))?;
        loop {
            // To be asked again on another connection, if the server has closed this one meanwhile.
            let again = (insists && connection.used && asks).then(|| request.clone());
            match connection.sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, connection)),
                Err(mut error) => {
                    self.broken();
                    let unsent = error.take_message().filter(|_| connection.used);
                    let Some(again) = unsent.or(again) else {
                        return Err(self.broke(what, "the connection broke", error.error()));
                    };
                    request = again;
                    connection = self.dial().await.map_err(|error| self.unreached(&error))?;
                }
            }
        }
    }

    async fn read(
        &self,
        what: &str,
        answer: Response<Incoming>,
        connection: Connection,
        bytes: usize,
    ) -> Result<HttpAnswer> {
        let (head, mut rest) = answer.into_parts();
        // In one piece from the start: ten thousand instances take their room, and twice that if they were put together
        // in the end.
        // A little more than before, as lists grow by and by.
        let mut body = Vec::with_capacity(bytes.saturating_add(bytes / 16).min(MOST));
        while let Some(frame) = rest.frame().await {
            let frame = frame.map_err(|error| {
                self.broken();
                self.broke(what, "the connection broke in the middle of the answer", &error)
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if body.len() + data.len() > MOST {
                let text = format!("{}, {what}: the answer has more than {MOST} bytes", self.server());
                return Err(Error::new(ErrorKind::Malformed, text));
            }
            body.extend_from_slice(&data);
        }
        body.shrink_to_fit();
        let closes =
            head.headers.get(CONNECTION).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"close"));
        if !closes {
            self.put(connection);
        }
        let unbroken_since = self.unbroken_since();
        Ok(HttpAnswer { unbroken_since, status: head.status, headers: head.headers, body: body.into() })
    }

    pub(super) fn late(&self, what: &str, within: Duration) -> Error {
        let text = format!("{} did not answer the {what} within {within:.1?}", self.server());
        Error::new(ErrorKind::Timeout, text)
    }

    fn unreached(&self, error: &(dyn StdError + 'static)) -> Error {
        let text = format!("cannot connect to {}", self.server());
        Error::new(ErrorKind::Unavailable, text).with_source(root_cause(error))
    }

    fn broke(&self, what: &str, how: &str, error: &(dyn StdError + 'static)) -> Error {
        let text = format!("{}, {what}: {how}", self.server());
        // What the server said before it hung up, where the client has lost that.
        let cause = self.trouble().unwrap_or_else(|| root_cause(error));
        Error::new(ErrorKind::Unavailable, text).with_source(cause)
    }
}

/// What all that is between says nothing more about.
fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
