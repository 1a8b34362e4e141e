//! How a registry in Eureka is opened by URL: [`open`]. Does no network I/O.

use std::time::Duration;

use callsign_core::{Access, Address, Error, Registry, RegistryUrl, Result};

use crate::builder::{Builder, Host, default_settings};
use crate::group::Fetch;
use crate::servers::Order;
use crate::wire::Format;

const DEFAULT_PORT: u16 = 8761;

/// Opens `eureka://host:port,host:port/eureka?key=value`: the servers, and the path below which they have `/apps`. Does
/// no network I/O.
///
/// The port is 8761 where the URL does not say. The path is `/eureka` for Spring Cloud's server and `/eureka/v2` for
/// Netflix' own. The keys:
///
/// | key | meaning |
/// |---|---|
/// | `poll` | how often what is watched is asked for, spread by a fifth; 30 s by default |
/// | `format` | what is written: `callsign` (the default) or `kratos`; see [`Format`] |
/// | `fetch` | what is asked for: `auto` (the default), `each` service by itself, or `all` at once; see [`Fetch`] |
/// | `status` | what of others is found: `up` (the default) or `all`, where what is not up is down |
/// | `order` | which server is asked first: the first `given` (the default) or a `random` one |
/// | `zones` | in which zone each server of the URL is, in their order, with commas between |
/// | `zone` | one's own, whose servers are asked before all others |
/// | `ttl`, `grace`, `drain`, `verify` | as in all registries: [`Settings`](callsign_core::Settings); by default 90 s, 90 s, 60 s and 30 s |
/// | `ca`, `cert`, `key`, `server_name`, `insecure_skip_verify` | of `eureka+tls://`: [`Tls`](callsign_core::Tls) |
/// | `password_file`, `insecure_plaintext_password` | the same for the password of the URL's user |
///
/// # Errors
/// [`Invalid`](callsign_core::ErrorKind::Invalid): no host, no path, an unknown key, a bad value, a file that is of no
/// use, or a password that would leave this machine in the clear.
/// [`Unsupported`](callsign_core::ErrorKind::Unsupported): TLS, in a build without the feature `tls`; or no Tokio
/// runtime to run on.
pub fn open(url: &RegistryUrl) -> Result<Registry> {
    let mut query = url.query();
    let order = query.choice("order", &Order::ALL)?.unwrap_or_default();
    let (zones, zone) = (query.take("zones"), query.take("zone"));
    let format = query.choice("format", &Format::ALL)?.unwrap_or_default();
    let fetch = query.choice("fetch", &Fetch::ALL)?.unwrap_or_default();
    let all = query.choice("status", &[("up", false), ("all", true)])?.unwrap_or(false);
    let poll = query.duration("poll")?;
    let settings = default_settings().with_query(&mut query)?;
    let access = Access::from_url(url, &mut query)?;
    query.finish()?;
    let hosts = url.hosts(DEFAULT_PORT)?;
    if url.path().is_empty() {
        return Err(Error::invalid(format!(
            "registry URL {url} has no path: write that below which Eureka has /apps, which is /eureka in most places, as \
             in eureka://{}/eureka",
            hosts.first().map(ToString::to_string).unwrap_or_default()
        )));
    }
    let hosts = located(url, hosts, zones.as_deref(), zone.as_deref())?;
    let mut builder =
        Builder::new(hosts, url.path()).order(order).format(format).fetch(fetch).settings(settings);
    if let Some(zone) = &zone {
        builder = builder.zone(zone);
    }
    if all {
        builder = builder.all_statuses();
    }
    if let Some(poll) = poll {
        builder = builder.poll(poll);
    }
    builder.access = access;
    builder.build_named(url.to_string())
}

/// The servers of a URL with their zones.
fn located(
    url: &RegistryUrl,
    hosts: Vec<Address>,
    zones: Option<&str>,
    own: Option<&str>,
) -> Result<Vec<Host>> {
    if zones.is_some() != own.is_some_and(|own| !own.is_empty()) {
        return Err(Error::invalid(format!(
            "registry URL {url} has one of zones and zone: zones names that of each server in their order, and zone one's \
             own, as in zones=eu-1,eu-2&zone=eu-1"
        )));
    }
    let Some(zones) = zones else {
        return Ok(hosts.into_iter().map(|address| Host { address, zone: None }).collect());
    };
    let zones: Vec<_> = zones.split(',').map(str::trim).collect();
    if zones.len() != hosts.len() {
        return Err(Error::invalid(format!(
            "registry URL {url} has {} servers and zones={}: zones names that of each server in their order, with commas \
             between",
            hosts.len(),
            zones.join(",")
        )));
    }
    let located = hosts.into_iter().zip(zones);
    Ok(located.map(|(address, zone)| Host { address, zone: Some(zone.to_owned()) }).collect())
}

/// The bounds of the time between two polls.
pub(crate) const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(24 * 3600));

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wrong_is_named() {
        for (url, says) in [
            ("eureka://127.0.0.1:8761", "as in eureka://127.0.0.1:8761/eureka"),
            ("eureka:///eureka", "8761"),
            ("eureka://127.0.0.1/eureka?poll=0s", "poll"),
            ("eureka://127.0.0.1/eureka?order=best", "given"),
            ("eureka://a,b/eureka?zones=z1&zone=z1", "2 servers and zones=z1"),
            ("eureka://a,b/eureka?zones=z1,z2", "zone one's own"),
            ("eureka://a,b/eureka?zone=z1", "zones=eu-1,eu-2"),
            ("eureka://127.0.0.1/eureka?format=xml", "callsign, kratos"),
            ("eureka://127.0.0.1/eureka?nonsense=1", "poll"),
            ("eureka://al:canary@10.0.0.1/eureka", "insecure_plaintext_password"),
        ] {
            let error = open(&RegistryUrl::parse(url).unwrap()).unwrap_err();
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
        open(&RegistryUrl::parse("eureka://a,b,c/eureka?zones=z1,,z2&zone=z3").unwrap()).unwrap();
        open(&RegistryUrl::parse("eureka://al:canary@127.0.0.1,localhost:1/eureka/v2?poll=5s").unwrap())
            .unwrap();
    }
}
