//! The child that watches: prints `listed MICROSECONDS` once, then `seen UNIX_NANOSECONDS` for each change.

use std::collections::HashSet;
use std::io::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use callsign_core::{Registry, RegistryUrl};
use etcd_client::{Client, GetOptions, WatchOptions};
use zookeeper_client::{AddWatchMode, EventType};

use crate::Result;
use crate::http::Connection;

pub(crate) async fn run(how: &str, address: &str, service: &str) -> Result<()> {
    let begun = Instant::now();
    match how {
        "etcd-bare" => bare_etcd(begun, address, service).await,
        "consul-bare" => bare_consul(begun, address, service).await,
        "zk-children" => bare_children(begun, address, service).await,
        "zk-recursive" => bare_recursive(begun, address, service).await,
        "etcd" => {
            let url = RegistryUrl::parse(&format!("etcd://{address}/services"))?;
            callsign(begun, &callsign_etcd::open(&url)?, service).await
        }
        "consul" => {
            let url = RegistryUrl::parse(&format!("consul://{address}"))?;
            callsign(begun, &callsign_consul::open(&url)?, service).await
        }
        "zk" => {
            let url = RegistryUrl::parse(&format!("zk://{address}/services"))?;
            callsign(begun, &callsign_zk::open(&url)?, service).await
        }
        _ => Err(format!("nobody watches as {how:?}").into()),
    }
}

fn say(what: &str, number: u128) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what} {number}")?;
    out.flush()
}

fn seen() -> Result<()> {
    Ok(say("seen", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// The least that anybody can do: one list, one watch, nothing decoded.
async fn bare_etcd(begun: Instant, address: &str, service: &str) -> Result<()> {
    let mut client = Client::connect([address], None).await?;
    let prefix = format!("/services/{service}/");
    let mut kv = client.kv_client().max_decoding_message_size(64 << 20);
    let listed = kv.get(prefix.as_str(), Some(GetOptions::new().with_prefix())).await?;
    let from = listed.header().map_or(0, etcd_client::ResponseHeader::revision) + 1;
    drop(listed);
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    let mut watch = client.watch(prefix.as_str(), Some(options)).await?;
    say("listed", begun.elapsed().as_micros())?;
    while let Some(said) = watch.message().await? {
        if !said.events().is_empty() {
            seen()?;
        }
    }
    Ok(())
}

/// The least that anybody can do: one query after the other, each answer read to its end and nothing decoded.
async fn bare_consul(begun: Instant, address: &str, service: &str) -> Result<()> {
    let mut connection = Connection::open(address.parse()?).await?;
    let path = format!("/v1/health/service/{service}");
    let mut index = connection.ask("GET", &path, "").await?;
    say("listed", begun.elapsed().as_micros())?;
    loop {
        let now = connection.ask("GET", &format!("{path}?index={index}&wait=10s"), "").await?;
        if now != index {
            index = now;
            seen()?;
        }
    }
}

/// Reads nodes, all at once, and decodes nothing.
async fn read(client: &zookeeper_client::Client, service: &str, names: &[String]) -> Result<()> {
    let asked: Vec<_> =
        names.iter().map(|name| client.get_data(&format!("/services/{service}/{name}"))).collect();
    for answer in asked {
        match answer.await {
            Ok(_) | Err(zookeeper_client::Error::NoNode) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The plain way: the names of the children, which are watched once, and then what is new.
async fn bare_children(begun: Instant, address: &str, service: &str) -> Result<()> {
    let client = crate::zk::connect(address).await?;
    let path = format!("/services/{service}");
    let (names, mut watcher) = client.list_and_watch_children(&path).await?;
    read(&client, service, &names).await?;
    let mut known: HashSet<String> = names.into_iter().collect();
    say("listed", begun.elapsed().as_micros())?;
    loop {
        watcher.changed().await;
        let names;
        (names, watcher) = client.list_and_watch_children(&path).await?;
        let new: Vec<_> = names.iter().filter(|name| !known.contains(*name)).cloned().collect();
        read(&client, service, &new).await?;
        known = names.into_iter().collect();
        seen()?;
    }
}

/// The least that anybody can do: an event says what to read.
async fn bare_recursive(begun: Instant, address: &str, service: &str) -> Result<()> {
    let client = crate::zk::connect(address).await?;
    let path = format!("/services/{service}");
    let mut watcher = client.watch(&path, AddWatchMode::PersistentRecursive).await?;
    read(&client, service, &client.list_children(&path).await?).await?;
    say("listed", begun.elapsed().as_micros())?;
    loop {
        let event = watcher.changed().await;
        if event.event_type == EventType::NodeCreated {
            client.get_data(&event.path).await?;
        }
        seen()?;
    }
}

async fn callsign(begun: Instant, registry: &Registry, service: &str) -> Result<()> {
    let mut watch = registry.watch(&service.parse()?);
    watch.ready().await?;
    say("listed", begun.elapsed().as_micros())?;
    loop {
        watch.changed().await?;
        seen()?;
    }
}
