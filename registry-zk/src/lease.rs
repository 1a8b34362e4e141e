//! [`ZkLease`]: one ephemeral node, alive for as long as the session is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Claim, Instance, Kept, Lease, Loss, Result, Terms};
use tokio::time::timeout;
use tracing::debug;
use zookeeper_client::{Client, Error as Said, SessionState};

use crate::entry::{Entry, Making, Try};
use crate::own::OwnNode;
use crate::session::{Session, ended, settled};

/// How often a change is tried anew because somebody else's came between, before the driver's pause.
const TRIES: usize = 5;
/// The pause before it is listened anew where that failed, though there is a connection.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct ZkLease {
    entry: Entry,
    /// That of the last claim that succeeded.
    client: Option<Client>,
    own: OwnNode,
}

impl ZkLease {
    pub(crate) fn new(session: Arc<Session>, path: String, making: Making, instance: &Instance) -> Self {
        let own = OwnNode::new(Arc::clone(&session));
        Self { entry: Entry::new(session, path, making, instance), client: None, own }
    }

    /// The client of the claim, while its session lives.
    fn live(&self) -> Option<&Client> {
        self.client.as_ref().filter(|client| self.entry.session.lives(client))
    }

    /// Waits for news of the node, and looks at it.
    async fn listen(&mut self, client: &Client) -> Result<Kept, Said> {
        self.own.heard().await;
        self.look(client).await
    }

    /// Looks at the node, and is told of the next change from then on.
    async fn look(&mut self, client: &Client) -> Result<Kept, Said> {
        if !self.own.may_watch(&self.entry.path) {
            let stat = client.check_stat(&self.entry.path).await?;
            self.own.listen_to_session(client);
            return Ok(self.entry.judge(stat.as_ref()));
        }
        let (stat, watcher) = client.check_and_watch_stat(&self.entry.path).await?;
        self.own.listen(watcher);
        Ok(self.entry.judge(stat.as_ref()))
    }
}

/// The time until it is listened anew where that failed: until the connection returns, if it is lost, and else a while.
/// Ends with the session.
async fn pause(client: &Client) {
    if client.state() == SessionState::SyncConnected {
        // An error: the while has passed.
        let _ = timeout(PAUSE, ended(client)).await;
    } else {
        settled(client, &mut client.state_watcher()).await;
    }
}

#[async_trait]
impl Lease for ZkLease {
    async fn claim(&mut self, how: Claim, instance: &Instance) -> Result<Option<Terms>> {
        let client = self.entry.session.client().await?;
        if how == Claim::Again && !self.entry.is_free() {
            return Ok(None);
        }
        let data = self.entry.encode(instance);
        let session = client.session_id().0;
        if self.entry.is_new_to(session) {
            self.own.close();
        }
        self.entry.claims_under(session);
        for _ in 0..TRIES {
            match self.entry.try_claim(&client, how, data.as_deref()).await? {
                Try::Done => {
                    self.entry.withdrawn = data.is_none();
                    let ttl = Some(client.session_timeout());
                    self.client = Some(client);
                    return Ok(Some(Terms { ttl }));
                }
                Try::Again => {}
                Try::Refused => return Ok(None),
            }
        }
        Err(self.entry.contended())
    }

    async fn renew(&mut self) -> Result<Kept> {
        if !self.entry.is_free() {
            return Ok(Kept::Superseded);
        }
        // The client library renews the session. What becomes of the node, `lost` tells.
        let Some(client) = self.live() else { return Ok(Kept::Lost) };
        match client.state() {
            // Another lease's leavings are no matter of ours, and yet there may be nobody else to remove them.
            SessionState::SyncConnected => self.entry.session.tidy(client).await.map(|()| Kept::Kept),
            _ if self.entry.session.has_ended(client).await => Ok(Kept::Lost),
            _ => Err(self.entry.session.disconnected()),
        }
    }

    async fn write(&mut self, instance: &Instance) -> Result<Kept> {
        let data = self.entry.encode(instance);
        for _ in 0..TRIES {
            let Some(client) = self.live().cloned() else { return Ok(Kept::Lost) };
            let stat = self.entry.stat(&client).await?;
            let kept = self.entry.judge(stat.as_ref());
            if kept != Kept::Kept {
                return Ok(kept);
            }
            let withdraws = data.is_none();
            // Before it is sent: what the watch of the node then hears is our own doing.
            self.entry.withdrawn |= withdraws;
            let tried = match (&data, stat) {
                (None, None) => Try::Done,
                (None, Some(stat)) => {
                    self.entry.changed(client.delete(&self.entry.path, Some(stat.version))).await?
                }
                (Some(data), None) => self.entry.create(&client, data).await?,
                (Some(data), Some(stat)) => {
                    self.entry
                        .wrote(data, client.set_data(&self.entry.path, data, Some(stat.version)))
                        .await?
                }
            };
            if let Try::Done = tried {
                self.entry.withdrawn = withdraws;
                return Ok(Kept::Kept);
            }
        }
        Err(self.entry.contended())
    }

    async fn verify(&mut self, instance: &Instance) -> Result<Kept> {
        let Some(client) = self.live() else { return Ok(Kept::Lost) };
        let (data, stat) =
            match self.entry.session.asked(&self.entry.what, client.get_data(&self.entry.path)).await? {
                Ok((data, stat)) => (Some(data), Some(stat)),
                Err(Said::NoNode) => (None, None),
                Err(error) => return Err(self.entry.session.said(&self.entry.what, &error)),
            };
        let kept = self.entry.judge(stat.as_ref());
        Ok(if kept == Kept::Kept && data != self.entry.encode(instance) { Kept::Lost } else { kept })
    }

    async fn lost(&mut self) -> Loss {
        let session = Arc::clone(&self.entry.session);
        loop {
            let Some(client) = self.live().cloned() else { return Loss::Lost };
            let looked = tokio::select! {
                biased;
                () = session.found_ended(&client) => return Loss::Lost,
                looked = self.listen(&client) => looked,
            };
            match looked {
                Ok(kept) => {
                    if let Some(loss) = kept.loss() {
                        return loss;
                    }
                }
                Err(_) if self.live().is_none() => return Loss::Lost,
                Err(error) => {
                    debug!(path = self.entry.path, %error, "cannot listen at the own node; trying again");
                    // A connection that was lost may have been lost with the session.
                    tokio::select! {
                        () = session.found_ended(&client) => {}
                        () = pause(&client) => {}
                    }
                }
            }
        }
    }

    async fn release(&mut self) -> Result<()> {
        self.own.close();
        if !self.entry.is_claimed() {
            return Ok(());
        }
        for _ in 0..TRIES {
            let client = self.entry.session.client().await?;
            match self.entry.stat(&client).await? {
                Some(stat) if self.entry.is_ours(&stat) => {
                    let deleted =
                        self.entry.changed(client.delete(&self.entry.path, Some(stat.version))).await?;
                    if let Try::Again = deleted {
                        continue;
                    }
                }
                _ => {}
            }
            self.entry.released();
            self.client = None;
            return Ok(());
        }
        Err(self.entry.contended())
    }
}
