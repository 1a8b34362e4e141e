//! [`ZkProtocol`]: what makes sources and leases, and what asks ZooKeeper about services as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use callsign_core::{
    Error, ErrorKind, Finding, Instance, InstanceId, Protocol, Report, Result, ServiceName, Settings,
};
use tracing::warn;
use zookeeper_client::{Acls, Client, CreateMode, Error as Said};

use crate::entry::Making;
use crate::index::{Index, Scope};
use crate::lease::ZkLease;
use crate::paths::{Paths, id_of};
use crate::session::Session;
use crate::source::{AT_ONCE, ZkSource};
use crate::wire::{decode, leaves_out};

/// How often a probe is tried anew because the nodes above it came or went meanwhile.
const TRIES: usize = 5;

/// ZooKeeper's own node, below the root.
const RESERVED: &str = "zookeeper";

#[derive(Debug)]
pub(crate) struct ZkProtocol {
    pub(crate) session: Arc<Session>,
    pub(crate) paths: Paths,
    pub(crate) making: Making,
    pub(crate) protocol: Option<Arc<str>>,
    pub(crate) settings: Settings,
}

impl ZkProtocol {
    /// The names of a node's children; none if there is no such node.
    async fn children(&self, client: &Client, what: &str, path: &str) -> Result<Vec<String>> {
        match self.session.asked(what, client.list_children(path)).await? {
            Ok(names) => Ok(names),
            Err(Said::NoNode) => Ok(Vec::new()),
            Err(error) => Err(self.session.said(what, &error)),
        }
    }

    /// The nodes below one that stand for an instance. Most are called by their id, and some hold it inside: all are read at
    /// once. Those that may not be read are left out; then why is the second.
    async fn nodes_of(
        &self,
        client: &Client,
        what: &str,
        dir: &str,
        (service, id): (&ServiceName, &InstanceId),
    ) -> Result<(Vec<String>, Option<Error>)> {
        let (mut found, mut closed) = (Vec::new(), None);
        for names in self.children(client, what, dir).await?.chunks(AT_ONCE) {
            let mut asked = Vec::new();
            for name in names {
                let (path, Ok(named)) = (format!("{dir}/{name}"), id_of(name)) else { continue };
                if named == *id {
                    found.push(path);
                } else {
                    asked.push((client.get_data(&path), path, named));
                }
            }
            for (answer, path, named) in asked {
                match self.session.asked(what, answer).await? {
                    Ok((data, _)) => {
                        let stands = decode(service, &named, &data, self.protocol.as_deref());
                        if stands.is_ok_and(|instances| instances.iter().any(|instance| instance.id() == id))
                        {
                            found.push(path);
                        }
                    }
                    Err(Said::NoNode) => {}
                    Err(error) => {
                        let said = self.session.said(&format!("search for an instance at {path}"), &error);
                        if error != Said::NoAuth {
                            return Err(said);
                        }
                        // It may be the one, and as well one of the others.
                        closed = Some(said);
                    }
                }
            }
        }
        Ok((found, closed))
    }

    async fn read(&self, client: &Client) -> Result<String> {
        let mut read = Vec::new();
        for root in self.paths.roots() {
            self.children(client, "list of services", root).await?;
            read.push(root);
        }
        Ok(format!("below {read:?}"))
    }

    /// Writes a probe and removes it, both in one step: whoever gives up in between leaves nothing behind, and nobody sees it.
    async fn write(&self, client: &Client) -> Result<String> {
        let what = "write of a probe";
        let base = self.paths.base();
        // No service can have this name.
        let probe = format!("{}/~check-{:016x}", base.trim_end_matches('/'), fastrand::u64(..));
        for _ in 0..TRIES {
            let missing = self.missing(client, what, base).await?;
            let written = self.write_and_remove(client, &missing, &probe);
            match self.session.asked(what, written).await? {
                Ok(()) => return Ok(format!("below {base:?}")),
                // Others make the nodes above it, or remove them.
                Err(Said::NodeExists | Said::NoNode | Said::NotEmpty) => {}
                Err(error) => return Err(self.session.said(what, &error)),
            }
        }
        let text = format!("{what}: what is above {probe} changes all the time");
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    /// Those of a node and the ones above it that are not there, the highest first. One that may not be looked at is there.
    async fn missing<'a>(&self, client: &Client, what: &str, base: &'a str) -> Result<Vec<&'a str>> {
        let above = base.match_indices('/').filter(|(at, _)| *at > 0).filter_map(|(at, _)| base.get(..at));
        let asked: Vec<_> =
            above.chain((base != "/").then_some(base)).map(|path| (client.check_stat(path), path)).collect();
        let mut missing = Vec::new();
        for (stat, path) in asked {
            match self.session.asked(what, stat).await? {
                Ok(None) => missing.push(path),
                Ok(Some(_)) | Err(Said::NoAuth) => {}
                Err(error) => return Err(self.session.said(what, &error)),
            }
        }
        Ok(missing)
    }

    async fn write_and_remove(&self, client: &Client, missing: &[&str], probe: &str) -> Result<(), Said> {
        let made = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let mut writer = client.new_multi_writer();
        for parent in missing {
            writer.add_create(parent, &[], &made)?;
        }
        writer.add_create(probe, b"probe", &CreateMode::Ephemeral.with_acls(Acls::anyone_all()))?;
        writer.add_delete(probe, None)?;
        for parent in missing.iter().rev() {
            writer.add_delete(parent, None)?;
        }
        writer.commit().await.map(drop).map_err(Said::from)
    }
}

#[async_trait]
impl Protocol for ZkProtocol {
    type Source = ZkSource;
    type Lease = ZkLease;

    fn source(&self, service: &ServiceName) -> ZkSource {
        let rng = self.settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let (dirs, protocol) = (self.paths.of_service(service), self.protocol.clone());
        let index = Index::new(Arc::new(Scope { service: service.clone(), dirs, protocol }));
        ZkSource::new(Arc::clone(&self.session), index, self.settings.verify, rng)
    }

    fn lease(&self, instance: &Instance) -> ZkLease {
        if leaves_out(self.making.format, instance) {
            warn!(
                service = %instance.service(), id = %instance.id(), format = ?self.making.format,
                "this format holds the address alone: weight, protocol, zone, version and metadata are not published"
            );
        }
        let path = self.paths.of_instance(self.making.format, instance);
        ZkLease::new(Arc::clone(&self.session), path, self.making, instance)
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let client = self.session.client().await?;
        let what = "list of services";
        let mut names = BTreeSet::new();
        for root in self.paths.roots_of_services() {
            let children = self.children(&client, what, root).await?;
            let children = children.into_iter().filter(|name| root != "/" || name != RESERVED);
            // All are asked at once.
            let asked: Vec<_> = children
                .filter_map(|name| ServiceName::new(&name).ok())
                .map(|name| (client.check_stat(&format!("{}/{name}", root.trim_end_matches('/'))), name))
                .collect();
            for (stat, name) in asked {
                let counts = match self.session.asked(what, stat).await? {
                    Ok(stat) => stat.is_some_and(|stat| stat.num_children > 0),
                    // Another's, and closed to us: it hides none of the others.
                    Err(Said::NoAuth) => true,
                    Err(error) => return Err(self.session.said(what, &error)),
                };
                if counts {
                    names.insert(name);
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    async fn remove(&self, service: &ServiceName, id: &InstanceId) -> Result<()> {
        let client = self.session.client().await?;
        let what = format!("removal of {service}/{id}");
        let (mut removed, mut closed) = (false, None);
        for dir in self.paths.of_service(service) {
            let (found, refused) = self.nodes_of(&client, &what, &dir, (service, id)).await?;
            closed = refused.or(closed);
            for path in found {
                match self.session.asked(&what, client.delete(&path, None)).await? {
                    Ok(()) => removed = true,
                    Err(Said::NoNode) => {}
                    Err(error) => return Err(self.session.said(&what, &error)),
                }
            }
        }
        let absent = || {
            let text = format!("no instance {id} of {service} is registered in ZooKeeper");
            Error::new(ErrorKind::NotFound, text)
        };
        if removed { Ok(()) } else { Err(closed.unwrap_or_else(absent)) }
    }

    async fn check(&self) -> Report {
        let outcome = |result: Result<String>| result.map_or_else(Finding::Refused, Finding::Works);
        match self.session.client().await {
            Ok(client) => {
                let reached =
                    format!("a session of {:?} at {}", client.session_timeout(), self.session.hosts());
                let read = outcome(self.read(&client).await);
                Report::new(Finding::Works(reached), read, outcome(self.write(&client).await))
            }
            Err(error) => {
                let not_tried = || Finding::NotTried("ZooKeeper cannot be reached".to_owned());
                Report::new(Finding::Refused(error), not_tried(), not_tried())
            }
        }
    }
}
