//! `static:NAME=host:port,host:port;NAME2=...`: a fixed list, for tests and for what never moves.

use async_trait::async_trait;

use crate::backend::{Claim, Kept, Lease, Loss, Protocol, Source, Terms, Update};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, InstanceId, ServiceName};
use crate::registry::Registry;
use crate::report::{Finding, Report};
use crate::settings::Settings;
use crate::url::RegistryUrl;

/// Opens a `static:` registry.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid): a list that cannot be read, a bad name or address, a name given twice, or
/// a query, of which it has none.
pub fn open(url: &RegistryUrl) -> Result<Registry> {
    url.query().finish()?;
    Registry::new(url.to_string(), Fixed { services: parse(url.path())?, settings: Settings::default() })
}

fn parse(list: &str) -> Result<Vec<(ServiceName, Vec<Instance>)>> {
    let how = "write static:NAME=host:port,host:port;NAME2=host:port";
    let mut services: Vec<(ServiceName, Vec<Instance>)> = Vec::new();
    for part in list.split(';').filter(|part| !part.is_empty()) {
        let (name, addresses) = part
            .split_once('=')
            .ok_or_else(|| Error::invalid(format!("static registry has {part:?} without '=': {how}")))?;
        let name = ServiceName::new(name)?;
        if services.iter().any(|(known, _)| *known == name) {
            return Err(Error::invalid(format!("static registry names {name} twice: {how}")));
        }
        let instances = addresses
            .split(',')
            .filter(|address| !address.is_empty())
            .map(|address| Instance::new(&name, address))
            .collect::<Result<_>>()?;
        services.push((name, instances));
    }
    if services.is_empty() {
        return Err(Error::invalid(format!("static registry names no service: {how}")));
    }
    services.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(services)
}

#[derive(Debug)]
struct Fixed {
    services: Vec<(ServiceName, Vec<Instance>)>,
    settings: Settings,
}

fn refused() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "a static: registry is a fixed list: nothing can be registered in it or removed",
    )
}

#[async_trait]
impl Protocol for Fixed {
    type Source = FixedSource;
    type Lease = NoLease;

    fn source(&self, service: &ServiceName) -> FixedSource {
        let listed = self.services.iter().find(|(name, _)| name == service);
        FixedSource {
            instances: listed.map(|(_, instances)| instances.clone()).unwrap_or_default(),
            told: false,
        }
    }

    fn lease(&self, _: &Instance) -> NoLease {
        NoLease
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.services.iter().map(|(name, _)| name.clone()).collect())
    }

    async fn remove(&self, _: &ServiceName, _: &InstanceId) -> Result<()> {
        Err(refused())
    }

    async fn check(&self) -> Report {
        let here = || Finding::Works(String::new());
        Report::new(here(), here(), Finding::Refused(refused()))
    }
}

#[derive(Debug)]
struct FixedSource {
    instances: Vec<Instance>,
    told: bool,
}

#[async_trait]
impl Source for FixedSource {
    async fn next(&mut self) -> Result<Update> {
        if std::mem::replace(&mut self.told, true) {
            return std::future::pending().await;
        }
        Ok(Update::Full(self.instances.clone()))
    }

    fn relist(&mut self) {
        self.told = false;
    }
}

#[derive(Debug)]
struct NoLease;

#[async_trait]
impl Lease for NoLease {
    async fn claim(&mut self, _: Claim, _: &Instance) -> Result<Option<Terms>> {
        Err(refused())
    }

    async fn renew(&mut self) -> Result<Kept> {
        Err(refused())
    }

    async fn write(&mut self, _: &Instance) -> Result<Kept> {
        Err(refused())
    }

    async fn verify(&mut self, _: &Instance) -> Result<Kept> {
        Err(refused())
    }

    async fn lost(&mut self) -> Loss {
        std::future::pending().await
    }

    async fn release(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists() {
        let services = parse("book=10.0.0.1:1,[::1]:2;web=h:80").unwrap();
        let names: Vec<_> = services.iter().map(|(name, list)| (name.as_str(), list.len())).collect();
        assert_eq!(names, [("book", 2), ("web", 1)]);
        for (list, says) in
            [("", "no service"), ("book", "without '='"), ("a=h:1;a=h:2", "twice"), ("a=h:0", "port 0")]
        {
            let error = parse(list).unwrap_err().to_string();
            assert!(error.contains(says), "{list}: {error}");
        }
    }
}
