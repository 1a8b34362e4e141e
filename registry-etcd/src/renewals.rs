//! [`Renewals`]: keeps a lease alive, over one stream for as long as that works.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use callsign_core::{ErrorKind, Kept, Result};
use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::error;
use crate::members::{Link, Members, Repeat};

/// A renewal is given up within this part of its period, before the driver gives it up.
const SHARE: f64 = 0.95;
/// The driver's least bound of a renewal, by which the first one is kept.
const LEAST: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Renewals {
    members: Arc<Members>,
    stream: Option<Stream>,
}

/// A stream of renewals.
#[derive(Debug)]
struct Stream {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    member: usize,
}

/// What a renewal was answered.
enum Answer {
    Alive,
    Dead,
    /// It was refused for what we say of who we are, which says nothing of the member.
    Refused,
    /// The stream broke.
    None,
}

impl Stream {
    async fn answer(&mut self) -> Answer {
        if self.keeper.keep_alive().await.is_err() {
            return Answer::None;
        }
        match self.answers.message().await {
            Ok(Some(answer)) if answer.ttl() > 0 => Answer::Alive,
            Ok(Some(_)) => Answer::Dead,
            Err(error) if error::is_unauthenticated(&error) => Answer::Refused,
            Ok(None) | Err(_) => Answer::None,
        }
    }
}

impl Renewals {
    pub(crate) fn new(members: Arc<Members>) -> Self {
        Self { members, stream: None }
    }

    /// Ends the stream: the next renewal is of another lease, or there is none.
    pub(crate) fn close(&mut self) {
        self.stream = None;
    }

    /// Renews a lease that was granted for `granted`. Cancel-safe.
    pub(crate) async fn renew(&mut self, lease: i64, granted: Duration) -> Result<Kept> {
        let period = (granted / 3).min(self.members.timeout()).max(LEAST);
        let started = Instant::now();
        let (doubtful, by) = (started + period / 2, started + period.mul_f64(SHARE));
        // Put back only when it has answered: an answer that was not waited for would be taken for the next.
        let Some(mut held) = self.stream.take() else { return self.reopen(lease, by).await };
        let member = held.member;
        let outcome = {
            let mut answer = pin!(held.answer());
            match timeout_at(doubtful, &mut answer).await {
                Ok(answered) => answered,
                Err(_) => {
                    // It may be slow, and it may be dead: from here on another member is asked beside it.
                    self.members.bad(member);
                    let late = async { timeout_at(by, &mut answer).await.unwrap_or(Answer::None) };
                    let mut late = pin!(late);
                    tokio::select! {
                        biased;
                        answered = &mut late => answered,
                        reopened = self.reopen(lease, by) => match reopened {
                            Ok(kept) => return Ok(kept),
                            Err(error) => match late.await {
                                Answer::None => return Err(error),
                                answered => answered,
                            },
                        },
                    }
                }
            }
        };
        match outcome {
            Answer::Alive => {
                self.stream = Some(held);
                Ok(Kept::Kept)
            }
            Answer::Dead => Ok(Kept::Lost),
            Answer::Refused => self.reopen(lease, by).await,
            Answer::None => {
                debug!(lease, "the stream of renewals broke; opening another");
                self.members.bad(member);
                self.reopen(lease, by).await
            }
        }
    }

    /// Opens another stream, whose opening is a renewal too.
    async fn reopen(&mut self, lease: i64, by: Instant) -> Result<Kept> {
        let open = |mut link: Link| async move { link.lease.keep_alive(lease).await };
        let left = by.saturating_duration_since(Instant::now());
        match self.members.ask_within(left, "renewal", Repeat::Safe, open).await {
            Ok((member, (keeper, answers))) => {
                self.stream = Some(Stream { keeper, answers, member });
                Ok(Kept::Kept)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Kept::Lost),
            Err(error) => Err(error),
        }
    }
}
