//! [`EtcdSource`]: follows one service. A list at one revision, then a watch from the next on, resumed where it
//! broke.
//!
//! Two things make a resumed watch less than certain. Compaction says so itself; a cluster that was wiped and
//! has grown past the old revision does not, and its watch stays silent for ever. So every resumption is
//! followed by a list, soon, and any revision that goes back is taken for a wipe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Error, ErrorKind, Instance, InstanceId, Removal, Result, Source, Update};
use etcd_client::{KeyValue, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::check::Check;
use crate::error;
use crate::index::{Index, Seen};
use crate::list::list;
use crate::members::{Link, Members, Repeat};

/// The list that verifies a resumed watch comes within this, at random: every client resumes at once.
const VERIFY: Duration = Duration::from_secs(8);
/// The most that resuming may take before the registry counts as unreadable.
const RESUME: Duration = Duration::from_secs(3);
/// A watch that breaks again so soon after it was resumed is not resumed at once: that would spin.
const SHORT: Duration = Duration::from_secs(1);

/// What is known, and how news of it comes.
#[derive(Debug)]
enum Cursor {
    /// Nothing can be built upon: to be listed.
    Unlisted,
    /// Known up to the positions, and not watched; `resuming` what was watched before.
    Listed { resuming: bool },
    /// The same, after etcd refused to go on: whether we may read is to be asked first, which gets a new token too.
    Refused,
    /// Watched through a member.
    Watched(Box<Watched>),
}

#[derive(Debug)]
struct Watched {
    stream: WatchStream,
    member: usize,
}

#[derive(Debug)]
pub(crate) struct EtcdSource {
    members: Arc<Members>,
    index: Index,
    cursor: Cursor,
    /// The last complete revision known of each prefix.
    positions: Vec<i64>,
    /// The highest revision that etcd has shown.
    seen: i64,
    /// When the watch broke the last time and was resumed.
    resumed: Option<Instant>,
    /// When a resumed watch is to be verified.
    verify_at: Option<Instant>,
    check: Check,
    rng: fastrand::Rng,
}

impl EtcdSource {
    /// `check` is how often to ask whether we may still read.
    pub(crate) fn new(members: Arc<Members>, index: Index, check: Duration, rng: fastrand::Rng) -> Self {
        let positions = vec![0; index.prefixes().len()];
        Self {
            members,
            index,
            cursor: Cursor::Unlisted,
            positions,
            seen: 0,
            resumed: None,
            verify_at: None,
            check: Check::new(check),
            rng,
        }
    }

    fn what(&self, exchange: &str) -> String {
        format!("{exchange} of {}", self.index.service())
    }

    async fn list(&mut self) -> Result<Vec<Instance>> {
        self.check.stop();
        let (revision, listing) = list(&self.members, &self.index).await?;
        let (instances, index) = listing.finish();
        self.index = index;
        if revision < self.seen {
            warn!(
                service = %self.index.service(), revision, before = self.seen,
                "etcd's revision went back: it was wiped or restored"
            );
        }
        self.positions.fill(revision);
        (self.seen, self.verify_at) = (revision, None);
        self.check.passed(&mut self.rng);
        Ok(instances)
    }

    /// Opens the watch behind the positions.
    async fn watch(&mut self, resuming: bool) -> Result<Watched> {
        let within = if resuming { RESUME.min(self.members.timeout()) } else { self.members.timeout() };
        let watches = || {
            let of = |(side, prefix): (usize, &str)| {
                let from = self.positions.get(side).map_or(0, |position| position + 1);
                let options = WatchOptions::new().with_watch_id(id_of_watch(side)).with_prefix();
                (prefix.to_owned(), options.with_start_revision(from))
            };
            self.index.readable().map(of).collect::<Vec<_>>()
        };
        let open = |mut link: Link| {
            let mut watches = watches().into_iter();
            async move {
                let Some((prefix, options)) = watches.next() else {
                    return Err(etcd_client::Error::WatchError("nothing to watch".to_owned()));
                };
                let mut stream = link.watch.watch(prefix, Some(options)).await?;
                for (prefix, options) in watches {
                    stream.watch(prefix, Some(options)).await?;
                }
                Ok(stream)
            }
        };
        let (member, stream) =
            self.members.ask_within(within, &self.what("watch"), Repeat::Safe, open).await?;
        debug!(service = %self.index.service(), member = self.members.address(member), resuming, "watching");
        Ok(Watched { stream, member })
    }

    /// The watch ended: it is resumed as `next` says, unless that was tried a moment ago.
    fn broke(&mut self, error: Error, next: Cursor) -> Result<()> {
        let now = Instant::now();
        if self.resumed.is_some_and(|last| now.saturating_duration_since(last) < SHORT) {
            self.cursor = Cursor::Unlisted;
            return Err(error);
        }
        self.resumed = Some(now);
        debug!(service = %self.index.service(), error = %error.chain(), "the watch broke; resuming it");
        self.cursor = next;
        let soon = now + VERIFY.mul_f64(self.rng.f64());
        self.verify_at = Some(self.verify_at.map_or(soon, |at| at.min(soon)));
        Ok(())
    }

    /// Takes in what the watch says; `None` if nothing has changed.
    fn take(&mut self, said: &WatchResponse, member: usize) -> Result<Option<Update>> {
        let revision = said.header().map_or(0, etcd_client::ResponseHeader::revision);
        if said.canceled() {
            self.cursor = Cursor::Unlisted;
            if said.compact_revision() != 0 {
                debug!(service = %self.index.service(), "etcd compacted what the watch missed; listing anew");
                return Ok(None);
            }
            let error = error::of_cancelled_watch(
                &self.what("watch"),
                self.members.address(member),
                said.cancel_reason(),
            );
            if is_refusal(&error) {
                // It may be the token that has expired, and not our rights.
                return self.broke(error, Cursor::Refused).map(|()| None);
            }
            self.members.bad(member);
            return Err(error);
        }
        if (1..self.seen).contains(&revision) {
            debug!(service = %self.index.service(), revision, before = self.seen, "the revision went back; listing anew");
            self.cursor = Cursor::Unlisted;
            return Ok(None);
        }
        self.seen = self.seen.max(revision);
        let skipped = self.index.skipped();
        let mut changes: BTreeMap<InstanceId, Option<Instance>> = BTreeMap::new();
        for event in said.events() {
            let Some(kv) = event.kv() else { continue };
            match change_of(&mut self.index, kv) {
                Seen::Changed { put, gone } => {
                    changes.extend(gone.into_iter().map(|id| (id, None)));
                    changes.extend(put.into_iter().map(|instance| (instance.id().clone(), Some(instance))));
                }
                Seen::Hidden => {
                    self.cursor = Cursor::Unlisted;
                    return Ok(None);
                }
            }
        }
        let reached = said.events().iter().filter_map(|event| event.kv().map(KeyValue::mod_revision)).max();
        if let (Some(position), Some(reached)) =
            (side_of(said.watch_id()).and_then(|side| self.positions.get_mut(side)), reached)
        {
            *position = reached.max(*position);
        }
        if changes.is_empty() && self.index.skipped() == skipped {
            return Ok(None);
        }
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (id, instance) in changes {
            match instance {
                Some(instance) => put.push(instance),
                // Expiry and removal look alike in etcd. Who leaves in order has said so before.
                None => gone.push((id, Removal::Expired)),
            }
        }
        Ok(Some(Update::Delta { put, gone }))
    }
}

#[async_trait]
impl Source for EtcdSource {
    async fn next(&mut self) -> Result<Update> {
        loop {
            let watched = match &mut self.cursor {
                Cursor::Unlisted => {
                    // Apart: a future that holds a list under way is large, and this one is made for every change.
                    let instances = Box::pin(self.list()).await?;
                    self.cursor = Cursor::Listed { resuming: false };
                    return Ok(Update::Full(instances));
                }
                Cursor::Listed { resuming } => {
                    let resuming = *resuming;
                    self.cursor = match Box::pin(self.watch(resuming)).await {
                        Ok(watched) => Cursor::Watched(Box::new(watched)),
                        Err(error) => {
                            self.cursor = Cursor::Unlisted;
                            return Err(error);
                        }
                    };
                    continue;
                }
                Cursor::Refused => {
                    let checked = self.check.now(&self.members, &self.index, &mut self.rng).await;
                    let listed = checked.is_ok();
                    self.cursor = if listed { Cursor::Listed { resuming: true } } else { Cursor::Unlisted };
                    checked?;
                    continue;
                }
                Cursor::Watched(watched) => watched,
            };
            let verify_at = self.verify_at;
            let said = tokio::select! {
                biased;
                said = watched.stream.message() => said,
                () = sleep_until(verify_at.unwrap_or_else(Instant::now)), if verify_at.is_some() => {
                    self.cursor = Cursor::Unlisted;
                    continue;
                }
                checked = self.check.due(&self.members, &self.index, &mut self.rng) => {
                    if let Err(error) = checked
                        && self.check.tells(&error)
                    {
                        self.cursor = Cursor::Unlisted;
                        return Err(error);
                    }
                    continue;
                }
            };
            let member = watched.member;
            match said {
                Ok(Some(said)) => {
                    if let Some(update) = self.take(&said, member)? {
                        return Ok(update);
                    }
                }
                // What cannot be taken in as an event may still be skipped in a list.
                Err(error) if error::too_large(&error) => self.cursor = Cursor::Unlisted,
                Err(error) => {
                    let error = error::map(&self.what("watch"), self.members.address(member), &error);
                    self.members.bad(member);
                    self.broke(error, Cursor::Listed { resuming: true })?;
                }
                Ok(None) => {
                    let what =
                        format!("etcd at {} ended the {}", self.members.address(member), self.what("watch"));
                    self.members.bad(member);
                    let error = Error::new(ErrorKind::Unavailable, what);
                    self.broke(error, Cursor::Listed { resuming: true })?;
                }
            }
        }
    }

    fn relist(&mut self) {
        self.cursor = Cursor::Unlisted;
    }

    fn skipped(&self) -> usize {
        self.index.skipped()
    }
}

/// Ids of ours tell the watches of a stream apart, one for each prefix; 0 would let etcd choose.
fn id_of_watch(side: usize) -> i64 {
    i64::try_from(side).map_or(i64::MAX, |side| side + 1)
}

fn side_of(watch: i64) -> Option<usize> {
    usize::try_from(watch).ok()?.checked_sub(1)
}

/// Whether it is about who we are and what we may.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::PermissionDenied)
}

/// A removal carries no creation. (The client library's own accessor panics on kinds that it does not know.)
fn change_of(index: &mut Index, kv: &KeyValue) -> Seen {
    if kv.create_revision() == 0 { index.delete(kv.key()) } else { index.put(kv.key(), kv.value()) }
}
