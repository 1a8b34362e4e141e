//! [`Entry`]: the node of one registration, whose it is, and how it is changed.
//!
//! Whose a node is is said by the session that owns it, and within a process by [`Owners`](crate::owners::Owners).
//! ZooKeeper compares versions and not owners: each change reads, judges, and then asks for the version that it has read.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use callsign_core::{Claim, Error, ErrorKind, Instance, Kept, Result};
use zookeeper_client::{Acls, Client, CreateMode, Error as Said, Stat};

use crate::builder::{Acl, Parents};
use crate::owners::{Left, Serial};
use crate::session::{Session, User};
use crate::wire::{Format, encode};

/// Data of so many bytes may be too large for servers that were told to take less than they do by default.
const LARGE: usize = 32 * 1024;

/// How many sessions are remembered under which the node may have been written.
const REMEMBERED: usize = 8;

/// How nodes are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making {
    pub(crate) format: Format,
    pub(crate) acl: Acl,
    pub(crate) parents: Parents,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) session: Arc<Session>,
    pub(crate) path: String,
    pub(crate) what: String,
    making: Making,
    serial: Serial,
    /// What Curator calls the time of registration.
    since: u64,
    /// Sessions under which we have written, or may have; the last one is the present one.
    sessions: Vec<i64>,
    /// We have taken the node away ourselves, and keep the lease.
    pub(crate) withdrawn: bool,
    /// Goes after what is left behind was written down.
    _user: User,
}

/// What came of one try to change the node.
pub(crate) enum Try {
    Done,
    /// Somebody else's change came between.
    Again,
    /// It is another's.
    Refused,
}

impl Entry {
    pub(crate) fn new(session: Arc<Session>, path: String, making: Making, instance: &Instance) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            path,
            what: format!("registration of {}/{}", instance.service(), instance.id()),
            making,
            serial: session.owners.serial(),
            since: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            sessions: Vec::new(),
            withdrawn: false,
            _user: User::new(&session),
            session,
        }
    }

    /// Whether anything may have been written.
    pub(crate) fn is_claimed(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// Whether the last claim was under another session, or there was none.
    pub(crate) fn is_new_to(&self, session: i64) -> bool {
        self.sessions.last() != Some(&session)
    }

    /// The node is about to be written under a session: it is ours from here on.
    pub(crate) fn claims_under(&mut self, session: i64) {
        if self.is_new_to(session) {
            self.sessions.push(session);
            if self.sessions.len() > REMEMBERED {
                self.sessions.remove(0);
            }
        }
        self.session.owners.take(&self.path, self.serial);
    }

    /// The node is ours no more.
    pub(crate) fn released(&mut self) {
        self.session.owners.release(&self.path, self.serial);
        self.sessions.clear();
    }

    pub(crate) fn encode(&self, instance: &Instance) -> Option<Vec<u8>> {
        encode(self.making.format, instance, self.since)
    }

    /// Whether nobody else in this process has the node.
    pub(crate) fn is_free(&self) -> bool {
        self.session.owners.of(&self.path).is_none_or(|serial| serial == self.serial)
    }

    /// Whether a node is ours, or was when an earlier session of ours ended.
    pub(crate) fn is_ours(&self, stat: &Stat) -> bool {
        self.is_free() && self.sessions.contains(&stat.ephemeral_owner)
    }

    /// What the state of the node means.
    pub(crate) fn judge(&self, stat: Option<&Stat>) -> Kept {
        match stat {
            _ if !self.is_free() => Kept::Superseded,
            None if self.withdrawn => Kept::Kept,
            None => Kept::Lost,
            Some(stat) if self.sessions.last() == Some(&stat.ephemeral_owner) => Kept::Kept,
            // Of a session that has ended, and ZooKeeper does not know it yet.
            Some(stat) if self.is_ours(stat) => Kept::Lost,
            Some(_) => Kept::Superseded,
        }
    }

    pub(crate) async fn stat(&self, client: &Client) -> Result<Option<Stat>> {
        self.session.ask(&self.what, client.check_stat(&self.path)).await
    }

    /// An answer of which some errors mean that somebody else's change came between.
    pub(crate) async fn changed<T>(&self, answer: impl Future<Output = Result<T, Said>>) -> Result<Try> {
        match self.session.asked(&self.what, answer).await? {
            Ok(_) => Ok(Try::Done),
            Err(Said::NodeExists | Said::NoNode | Said::BadVersion) => Ok(Try::Again),
            Err(error) => Err(self.session.said(&self.what, &error)),
        }
    }

    /// The same for one that carries data. Servers have no words for a request that is too large: they hang up.
    pub(crate) async fn wrote<T>(
        &self,
        data: &[u8],
        answer: impl Future<Output = Result<T, Said>>,
    ) -> Result<Try> {
        let answer = self.session.asked(&self.what, answer).await?;
        if let Err(error @ (Said::ConnectionLoss | Said::Custom(_))) = &answer
            && data.len() > LARGE
        {
            let said = self.session.said(&self.what, error);
            let text = format!(
                "{said}: if that happens every time, its {} bytes are more than the servers take: set \
                 -Djute.maxbuffer=BYTES for the Java of every server, or register with less metadata",
                data.len()
            );
            return Err(Error::new(said.kind(), text));
        }
        self.changed(std::future::ready(answer)).await
    }

    pub(crate) fn acls(&self) -> Acls<'static> {
        match self.making.acl {
            Acl::World => Acls::anyone_all(),
            Acl::Creator => Acls::creator_all(),
        }
    }

    pub(crate) async fn create(&self, client: &Client, data: &[u8]) -> Result<Try> {
        let options = CreateMode::Ephemeral.with_acls(self.acls());
        match self.session.asked(&self.what, client.create(&self.path, data, &options)).await? {
            Err(Said::NoNode) => {
                let refused = self.create_parents(client).await?;
                match (
                    self.session.asked(&self.what, client.create(&self.path, data, &options)).await?,
                    refused,
                ) {
                    (Err(Said::NoNode), Some(refused)) => Err(refused),
                    (answer, _) => self.wrote(data, std::future::ready(answer)).await,
                }
            }
            answer => self.wrote(data, std::future::ready(answer)).await,
        }
    }

    /// Those that others have made are left as they are. Returns what was said of one that may not be made: it may be there.
    async fn create_parents(&self, client: &Client) -> Result<Option<Error>> {
        let mut refused = None;
        let ends: Vec<_> = self.path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).collect();
        for (n, end) in ends.iter().enumerate() {
            let is_service = n + 1 == ends.len();
            let mode = match self.making.parents {
                Parents::Container if is_service => CreateMode::Container,
                _ => CreateMode::Persistent,
            };
            // Others register here too, whatever of ours only we may touch.
            let options = mode.with_acls(Acls::anyone_all());
            let parent = self.path.get(..*end).unwrap_or_default();
            match self.session.asked(&self.what, client.create(parent, &[], &options)).await? {
                // One above it has gone meanwhile: who makes the node finds that out, and begins anew.
                Ok(_) | Err(Said::NodeExists | Said::NoNode) => {}
                Err(error @ Said::NoAuth) => {
                    refused = Some(self.session.said(&format!("creation of {parent}"), &error));
                }
                Err(error) => return Err(self.session.said(&self.what, &error)),
            }
        }
        Ok(refused)
    }

    /// Puts a node in the place of another, in one step.
    pub(crate) async fn replace(&self, client: &Client, data: &[u8], version: i32) -> Result<Try> {
        let options = CreateMode::Ephemeral.with_acls(self.acls());
        let mut writer = client.new_multi_writer();
        let added = writer
            .add_delete(&self.path, Some(version))
            .and_then(|()| writer.add_create(&self.path, data, &options))
            // Never the version of what was there: who has read that must not take ours for it.
            .and_then(
                |()| if version == 0 { writer.add_set_data(&self.path, data, Some(0)) } else { Ok(()) },
            );
        added.map_err(|error| self.session.said(&self.what, &error))?;
        let committed = writer.commit();
        self.wrote(data, async { committed.await.map_err(Said::from) }).await
    }

    /// One try to make the node what a claim says.
    pub(crate) async fn try_claim(&self, client: &Client, how: Claim, data: Option<&[u8]>) -> Result<Try> {
        if let Some(data) = data
            && let Try::Done = self.create(client, data).await?
        {
            return Ok(Try::Done);
        }
        let Some(stat) = self.stat(client).await? else {
            return Ok(if data.is_none() { Try::Done } else { Try::Again });
        };
        if how == Claim::Again && !self.is_ours(&stat) {
            return Ok(Try::Refused);
        }
        match data {
            None => self.changed(client.delete(&self.path, Some(stat.version))).await,
            Some(data) if stat.ephemeral_owner == client.session_id().0 => {
                self.wrote(data, client.set_data(&self.path, data, Some(stat.version))).await
            }
            Some(data) => self.replace(client, data, stat.version).await,
        }
    }

    pub(crate) fn contended(&self) -> Error {
        let text = format!("{}: the node {} changes all the time", self.what, self.path);
        Error::new(ErrorKind::Unavailable, text)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.is_claimed() {
            return;
        }
        let sessions = std::mem::take(&mut self.sessions);
        self.released();
        self.session.owners.leave(Left { path: self.path.clone(), sessions });
    }
}

#[cfg(test)]
mod tests {
    use crate::fake::{CREATE, EXISTS, NO_NODE, NODE_EXISTS, created, listen, serve, session};

    use super::*;

    /// As containers that Curator has made do, and others who share them.
    #[tokio::test]
    async fn what_is_above_may_go_while_it_is_made() {
        let server = listen().await;
        let session = Arc::new(session(&server));
        let instance = Instance::new("book", "10.0.0.1:80").unwrap();
        let making = Making { format: Format::GoKit, acl: Acl::World, parents: Parents::Persistent };
        let entry = Entry::new(Arc::clone(&session), "/services/book/a".to_owned(), making, &instance);
        // The node above all is there when it is asked for, and gone when the next is.
        let (mut there, mut gone) = (vec!["/services".to_owned()], false);
        let serving = serve(&server, |(what, path)| {
            let above = path.rsplit_once('/').map_or("", |(above, _)| above);
            match *what {
                EXISTS => Err(NO_NODE),
                CREATE if there.contains(path) => {
                    if !gone {
                        gone = true;
                        there.clear();
                    }
                    Err(NODE_EXISTS)
                }
                CREATE if above.is_empty() || there.iter().any(|it| it == above) => {
                    there.push(path.clone());
                    Ok(created(path))
                }
                _ => Err(NO_NODE),
            }
        });
        let claim = async {
            let client = session.client().await?;
            loop {
                match entry.try_claim(&client, Claim::Take, Some(b"10.0.0.1:80")).await? {
                    Try::Again => {}
                    done => return Ok::<_, Error>(matches!(done, Try::Done)),
                }
            }
        };
        let claimed = tokio::select! {
            claimed = claim => claimed,
            () = serving => unreachable!(),
        };
        assert!(claimed.unwrap());
    }
}
