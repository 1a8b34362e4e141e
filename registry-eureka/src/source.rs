//! [`EurekaSource`]: follows one service by asking for it again and again, or with all others for everything.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Error, ErrorKind, Result, Source, Update};
use tokio::time::{Instant, sleep_until};

use crate::ask::{Ask, Origin};
use crate::group::{Fetched, Member};
use crate::listing::{Listing, Said, Told};
use crate::wire::read_each;

/// For each moment that an answer takes, this many pass until the next question. What a server takes that is of no use
/// does not count: whoever had to go to another has waited enough.
const SHARE: u32 = 2;

#[derive(Debug)]
pub(crate) struct EurekaSource {
    member: Member,
    what: String,
    app: String,
    listing: Listing,
    poll: Duration,
    rng: fastrand::Rng,
    next_at: Instant,
    /// The last answer, of which nothing new can come.
    last: Option<Last>,
    prints: RandomState,
    /// When it was asked for what was read last.
    asked: Option<Instant>,
    /// Since when that was answered and read, as if it had been done in one go.
    busy_since: Instant,
}

#[derive(Debug, PartialEq)]
enum Last {
    /// A hash of all of it, with keys that nobody knows.
    One(Origin, u64),
    /// When the service changed last.
    All(Origin, u64),
}

impl EurekaSource {
    pub(crate) fn new(member: Member, listing: Listing, poll: Duration, rng: fastrand::Rng) -> Self {
        let service = listing.service();
        Self {
            member,
            what: format!("list of {service}"),
            app: service.as_str().to_ascii_uppercase(),
            listing,
            poll,
            rng,
            next_at: Instant::now(),
            last: None,
            prints: RandomState::new(),
            asked: None,
            busy_since: Instant::now(),
        }
    }

    /// Asks once, and returns what is new.
    async fn ask(&mut self) -> Result<Option<Update>> {
        let said = if self.member.shares() { self.ask_for_all().await? } else { self.ask_for_one().await? };
        match said {
            Said::News(update) => Ok(Some(update)),
            Said::Nothing => Ok(None),
            Said::Forgotten => {
                let text = format!(
                    "{}: Eureka has nothing that it had before: its server was restarted, or has not heard of it yet",
                    self.what
                );
                Err(Error::new(ErrorKind::Unavailable, text))
            }
        }
    }

    async fn ask_for_one(&mut self) -> Result<Said> {
        let ask = Ask::get(&["apps", &self.app]).list();
        let servers = self.member.servers();
        let answered = servers.found(&self.what, &ask, !self.listing.is_empty()).await?;
        let origin = answered.origin();
        (self.asked, self.busy_since) = (Some(answered.asked), answered.asked);
        let body = &answered.answer.body;
        let last = Last::One(origin, self.prints.hash_one(body));
        if self.last.as_ref() == Some(&last) && !self.listing.is_unfinished() {
            return Ok(Said::Nothing);
        }
        let mut round = self.listing.round();
        if !answered.is_absent() {
            read_each(body, |read| self.listing.add(&mut round, Told::Once(&read)))
                .map_err(|why| servers.malformed(&self.what, origin.server, why))?;
        }
        self.last = Some(last);
        Ok(self.listing.finish(round, origin, Instant::now()))
    }

    async fn ask_for_all(&mut self) -> Result<Said> {
        // Whoever is the first to ask again asks for all who follow something.
        let after = self.asked.unwrap_or_else(Instant::now);
        let shared = self.member.fetch(after).await?;
        let Some(Fetched { origin, asked, answered }) = shared.from() else { return Ok(Said::Nothing) };
        let now = Instant::now();
        self.asked = Some(asked);
        self.busy_since = now.checked_sub(answered - asked).unwrap_or(now);
        let last = Last::All(origin, shared.all().version(&self.app));
        if self.last.as_ref() == Some(&last) && !self.listing.is_unfinished() {
            return Ok(Said::Nothing);
        }
        let mut round = self.listing.round();
        for kept in shared.all().entries(&self.app) {
            self.listing.add(&mut round, Told::Kept(kept));
        }
        self.last = Some(last);
        Ok(self.listing.finish(round, origin, answered))
    }
}

#[async_trait]
impl Source for EurekaSource {
    async fn next(&mut self) -> Result<Update> {
        loop {
            sleep_until(self.next_at).await;
            let asked = self.ask().await;
            if asked.is_err() {
                self.relist();
                self.listing.failed();
            } else {
                let pause = self.poll.mul_f64(0.8 + 0.4 * self.rng.f64());
                let now = Instant::now();
                self.next_at =
                    (self.asked.unwrap_or(now) + pause).max(now + self.busy_since.elapsed() * SHARE);
            }
            if let Some(update) = asked? {
                return Ok(update);
            }
        }
    }

    fn relist(&mut self) {
        self.listing.relist();
        self.last = None;
        self.asked = None;
        self.next_at = Instant::now();
    }

    fn skipped(&self) -> usize {
        self.listing.skipped()
    }
}
