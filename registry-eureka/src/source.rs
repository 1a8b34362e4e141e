//! [`EurekaSource`]: follows one service by asking for it again and again.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use callsign_core::{Error, ErrorKind, Result, Source, Update};
use tokio::time::{Instant, sleep_until};

use crate::listing::{Listing, Origin, Said};
use crate::servers::{Ask, Servers};
use crate::wire::{Document, read};

/// For each moment that an answer takes, this many pass until the next question.
const SHARE: u32 = 2;

#[derive(Debug)]
pub(crate) struct EurekaSource {
    servers: Servers,
    what: String,
    app: String,
    listing: Listing,
    poll: Duration,
    rng: fastrand::Rng,
    next_at: Instant,
    /// The last answer, of which nothing new can come.
    last: Option<(Origin, Bytes)>,
}

impl EurekaSource {
    pub(crate) fn new(servers: Servers, listing: Listing, poll: Duration, rng: fastrand::Rng) -> Self {
        let service = listing.service();
        Self {
            servers,
            what: format!("list of {service}"),
            app: service.as_str().to_ascii_uppercase(),
            listing,
            poll,
            rng,
            next_at: Instant::now(),
            last: None,
        }
    }

    /// Asks once, and returns what is new.
    async fn ask(&mut self) -> Result<Option<Update>> {
        let ask = Ask::get(&["apps", &self.app]).list();
        let answered = self.servers.found(&self.what, &ask).await?;
        let (by, answer) = (answered.by, &answered.answer);
        let origin = Origin { server: by, since: answer.unbroken_since };
        if self.last.as_ref().is_some_and(|(last, body)| *last == origin && *body == answer.body) {
            return Ok(None);
        }
        let document = if answered.is_absent() {
            Document::default()
        } else {
            read(&answer.body).map_err(|why| self.servers.malformed(&self.what, by, why))?
        };
        match self.listing.take(document.entries.iter(), origin, Instant::now()) {
            Said::Forgotten => {
                let text = format!(
                    "server {}, {}: nothing is there that was there before: it was restarted, or has not heard of it yet",
                    self.servers.name(by),
                    self.what
                );
                Err(Error::new(ErrorKind::Unavailable, text))
            }
            Said::Nothing => {
                self.last = Some((origin, answer.body.clone()));
                Ok(None)
            }
            Said::News(update) => {
                self.last = Some((origin, answer.body.clone()));
                Ok(Some(update))
            }
        }
    }
}

#[async_trait]
impl Source for EurekaSource {
    async fn next(&mut self) -> Result<Update> {
        loop {
            sleep_until(self.next_at).await;
            let began = Instant::now();
            let asked = self.ask().await;
            if asked.is_err() {
                self.relist();
            } else {
                let pause = self.poll.mul_f64(0.8 + 0.4 * self.rng.f64());
                self.next_at = Instant::now() + pause.max(began.elapsed() * SHARE);
            }
            if let Some(update) = asked? {
                return Ok(update);
            }
        }
    }

    fn relist(&mut self) {
        self.listing.relist();
        self.last = None;
        self.next_at = Instant::now();
    }

    fn skipped(&self) -> usize {
        self.listing.skipped()
    }
}
