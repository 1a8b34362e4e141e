//! [`EtcdProtocol`]: what makes sources and leases, and what asks etcd about services as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use callsign_core::{
    Address, Connector, Error, ErrorKind, Finding, Instance, InstanceId, Protocol, Report, Result,
    ServiceName, Settings,
};
use etcd_client::{GetOptions, KeyValue, LeaseGrantOptions, PutOptions, Txn, TxnOp};
use tokio::runtime::Handle;
use tracing::{debug, warn};

use crate::identity::Identity;
use crate::index::{Index, Scope, Seen};
use crate::keys::{Keys, segment_of, service_of, shared_id};
use crate::lease::EtcdLease;
use crate::list::{after, end_of, start_of};
use crate::members::{Link, Members, Repeat};
use crate::source::EtcdSource;
use crate::wire::{Format, leaves_out};

/// Keys a page when only names are asked for.
const NAMES: i64 = 1000;
/// How long the entry of a check lives if it cannot be removed again, in seconds.
const PROBE_TTL: i64 = 5;

/// All that a registry in etcd is made of.
pub(crate) struct Config {
    pub(crate) endpoints: Vec<Address>,
    pub(crate) keys: Keys,
    pub(crate) format: Format,
    /// Of an entry's several endpoints, those that speak this.
    pub(crate) protocol: Option<Arc<str>>,
    pub(crate) settings: Settings,
    pub(crate) connector: Connector,
    pub(crate) identity: Option<Identity>,
    pub(crate) runtime: Handle,
}

#[derive(Debug)]
pub(crate) struct EtcdProtocol {
    members: Arc<Members>,
    keys: Keys,
    format: Format,
    protocol: Option<Arc<str>>,
    settings: Settings,
}

impl EtcdProtocol {
    pub(crate) fn new(config: Config) -> Self {
        let Config { endpoints, keys, format, protocol, settings, connector, identity, runtime } = config;
        // At random, so that the clients of a cluster spread over its members.
        let first = rng(&settings).usize(..endpoints.len().max(1));
        let timeout = settings.request_timeout;
        let members = Arc::new(Members::new(endpoints, first, timeout, connector, identity, runtime));
        Self { members, keys, format, protocol, settings }
    }

    fn scope(&self, service: &ServiceName) -> Arc<Scope> {
        Arc::new(Scope {
            service: service.clone(),
            prefixes: self.keys.of_service(service),
            optional: Keys::other_side(self.format),
            protocol: self.protocol.clone(),
        })
    }

    /// The names below one root, one page of keys after the other; what is left of a segment is jumped over.
    async fn names_below(&self, root: &str, names: &mut BTreeSet<ServiceName>) -> Result<()> {
        let (mut from, end) = (start_of(root), end_of(root));
        loop {
            let options = GetOptions::new().with_range(end.clone()).with_keys_only().with_limit(NAMES);
            let read = |mut link: Link| {
                let (from, options) = (from.clone(), options.clone());
                async move { link.kv.get(from, Some(options)).await }
            };
            let (_, page) = self.members.ask("list of services", Repeat::Safe, read).await?;
            names.extend(page.kvs().iter().filter_map(|kv| service_of(root, kv.key())));
            let Some(last) = page.kvs().last().filter(|_| page.more()).map(KeyValue::key) else {
                return Ok(());
            };
            from = match segment_of(root, last) {
                Some(segment) => end_of(segment),
                None => after(last),
            };
        }
    }

    /// Whether we are refused nothing but the other spelling of the prefix, which a user of etcd is rarely permitted.
    fn may_be_denied(&self, side: usize, error: &Error) -> bool {
        error.kind() == ErrorKind::PermissionDenied && side == Keys::other_side(self.format)
    }

    /// Whether a key is where we write ourselves: elsewhere we may lack rights, and nothing of ours is there.
    fn is_own(&self, key: &str) -> bool {
        key.starts_with(self.keys.root(self.format))
    }

    /// Deletes keys one by one, those that we may, and says whether there was one.
    async fn delete_permitted(&self, what: &str, keys: &[String]) -> Result<bool> {
        let mut removed = false;
        for key in keys {
            match self.delete(what, std::slice::from_ref(key)).await {
                Err(error) if error.kind() == ErrorKind::PermissionDenied && !self.is_own(key) => {}
                done => removed |= done?,
            }
        }
        Ok(removed)
    }

    /// Deletes keys, and says whether there was one.
    async fn delete(&self, what: &str, keys: &[String]) -> Result<bool> {
        let delete = |mut link: Link| {
            let ops: Vec<_> = keys.iter().map(|key| TxnOp::delete(key.as_str(), None)).collect();
            async move { link.kv.txn(Txn::new().and_then(ops)).await }
        };
        // Asked once: whether a second try finds nothing because the first one succeeded could not be told.
        let (_, done) = self.members.ask(what, Repeat::Unsent, delete).await?;
        Ok(done.op_responses().iter().any(|response| {
            matches!(response, etcd_client::TxnOpResponse::Delete(deleted) if deleted.deleted() > 0)
        }))
    }

    /// Whether an instance is among those that a key holds.
    async fn stands_for(
        &self,
        what: &str,
        key: &str,
        service: &ServiceName,
        id: &InstanceId,
    ) -> Result<bool> {
        let read = |mut link: Link| async move { link.kv.get(key, None).await };
        let (_, found) = self.members.ask(what, Repeat::Safe, read).await?;
        let mut index = Index::new(self.scope(service));
        Ok(found.kvs().iter().any(|kv| {
            let seen = index.put(kv.key(), kv.value());
            matches!(seen, Seen::Changed { put, .. } if put.iter().any(|instance| instance.id() == id))
        }))
    }

    async fn reach(&self) -> Result<String> {
        let status = |mut link: Link| async move { link.maintenance.status().await };
        match self.members.ask("status", Repeat::Safe, status).await {
            Ok((member, status)) => {
                Ok(format!("etcd {} at {}", status.version(), self.members.address(member)))
            }
            // It answered, so it was reached.
            Err(error)
                if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unauthenticated) =>
            {
                Ok("etcd, which does not tell us its version".to_owned())
            }
            Err(error) => Err(error),
        }
    }

    async fn read(&self) -> Result<String> {
        let (mut read, mut denied) = (Vec::new(), Vec::new());
        for (side, root) in self.keys.roots().iter().enumerate() {
            let page = |mut link: Link| {
                let options = GetOptions::new().with_prefix().with_keys_only().with_limit(1);
                async move { link.kv.get(root.as_str(), Some(options)).await }
            };
            match self.members.ask("list of services", Repeat::Safe, page).await {
                Err(error) if self.may_be_denied(side, &error) => denied.push(root),
                answer => answer.map(|_| read.push(root))?,
            }
        }
        let mut what = format!("below {read:?}");
        if !denied.is_empty() {
            what += &format!("; not permitted below {denied:?}, where others may register");
        }
        Ok(what)
    }

    async fn write(&self) -> Result<String> {
        let lease = fastrand::i64(1..);
        // No service can have this name, so nobody takes the probe for an instance.
        let key = format!("{}~check/{lease:016x}", self.keys.root(self.format));
        let grant = |mut link: Link| async move {
            link.lease.grant(PROBE_TTL, Some(LeaseGrantOptions::new().with_id(lease))).await
        };
        self.members.ask("lease for a probe", Repeat::Unsent, grant).await?;
        let put = |mut link: Link| {
            let key = key.clone();
            async move { link.kv.put(key, "probe", Some(PutOptions::new().with_lease(lease))).await }
        };
        let written = self.members.ask("write of a probe", Repeat::Safe, put).await;
        // Takes the key with it; at the worst it expires.
        let revoke = |mut link: Link| async move { link.lease.revoke(lease).await };
        let revoked = self.members.ask("removal of a probe", Repeat::Safe, revoke).await;
        written?;
        match revoked {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(format!("below {:?}", self.keys.root(self.format))),
        }
    }
}

#[async_trait]
impl Protocol for EtcdProtocol {
    type Source = EtcdSource;
    type Lease = EtcdLease;

    fn source(&self, service: &ServiceName) -> EtcdSource {
        let index = Index::new(self.scope(service));
        EtcdSource::new(Arc::clone(&self.members), index, self.settings.verify, rng(&self.settings))
    }

    fn lease(&self, instance: &Instance) -> EtcdLease {
        if leaves_out(self.format, instance) {
            warn!(
                service = %instance.service(), id = %instance.id(), format = ?self.format,
                "this format holds the address alone: weight, protocol, zone, version and metadata are not published"
            );
        }
        let key = self.keys.of_instance(self.format, instance.service(), instance.id());
        EtcdLease::new(Arc::clone(&self.members), key, self.format, self.settings.ttl)
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let mut names = BTreeSet::new();
        for (side, root) in self.keys.roots_of_services() {
            match self.names_below(root, &mut names).await {
                Err(error) if self.may_be_denied(side, &error) => {
                    debug!(root, error = %error.chain(), "services below this prefix are not listed");
                }
                done => done?,
            }
        }
        Ok(names.into_iter().collect())
    }

    async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        let what = format!("removal of {service}/{id}");
        let keys = self.keys.all_of_instance(service, id);
        let removed = match self.delete(&what, &keys).await {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.delete_permitted(&what, &keys).await?
            }
            done => done?,
        };
        if removed {
            return Ok(());
        }
        // One of several that stand under one key goes with its siblings.
        let siblings = shared_id(id).map(|shared| self.keys.all_of_instance(service, &shared));
        for key in siblings.into_iter().flatten() {
            match self.stands_for(&what, &key, service, id).await {
                Err(error) if error.kind() == ErrorKind::PermissionDenied && !self.is_own(&key) => {}
                found => {
                    if found? && self.delete(&what, &[key]).await? {
                        return Ok(());
                    }
                }
            }
        }
        Err(Error::new(ErrorKind::NotFound, format!("no instance {id} of {service} is registered in etcd")))
    }

    async fn check(&self) -> Report {
        let outcome = |result: Result<String>| result.map_or_else(Finding::Refused, Finding::Works);
        match self.reach().await {
            Ok(reached) => {
                Report::new(Finding::Works(reached), outcome(self.read().await), outcome(self.write().await))
            }
            Err(error) => {
                let not_tried = || Finding::NotTried("etcd cannot be reached".to_owned());
                Report::new(Finding::Refused(error), not_tried(), not_tried())
            }
        }
    }
}

fn rng(settings: &Settings) -> fastrand::Rng {
    settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)
}
