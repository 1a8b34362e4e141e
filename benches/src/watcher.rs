//! The child that watches: prints `listed MICROSECONDS` once, then `seen UNIX_NANOSECONDS` for each change.

use std::error::Error;
use std::io::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use callsign_core::RegistryUrl;
use etcd_client::{Client, GetOptions, WatchOptions};

pub async fn run(how: &str, address: &str, service: &str) -> Result<(), Box<dyn Error>> {
    match how {
        "bare" => bare(address, service).await,
        _ => callsign(&format!("etcd://{address}/services"), service).await,
    }
}

fn say(what: &str, number: u128) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what} {number}")?;
    out.flush()
}

fn seen() -> Result<(), Box<dyn Error>> {
    Ok(say("seen", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// The least that anybody can do: one list, one watch, nothing decoded.
async fn bare(address: &str, service: &str) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
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

async fn callsign(url: &str, service: &str) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let registry = callsign_etcd::open(&RegistryUrl::parse(url)?)?;
    let mut watch = registry.watch(&service.parse()?);
    watch.ready().await?;
    say("listed", begun.elapsed().as_micros())?;
    loop {
        watch.changed().await?;
        seen()?;
    }
}
