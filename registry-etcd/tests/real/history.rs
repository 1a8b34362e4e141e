//! All that a client shows, through a link that fails in every way, held against all that was written.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use callsign_core::{InstanceWatch, Snapshot};
use callsign_testkit::conformance::full;
use callsign_testkit::etcd::{Entry, Events, Gateway};
use callsign_testkit::history::{Listing, Promises, Shown, Write, check};
use callsign_testkit::proxy::Proxy;
use callsign_testkit::record::Recorder;
use callsign_testkit::wait::eventually;
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep};

use crate::{book, measured, open_at, secs, start};

pub(crate) const PREFIX: &str = "services/book/";
/// Few, so that all are gone now and then.
const IDS: u16 = 4;
const GRACE: u64 = 3;
/// A silent connection is found by pings, and then what was missed is caught up with; stale is said by then.
const LAG: Duration = Duration::from_secs(15);
/// How many schedules run beside each other.
const BESIDE: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_was_written() {
    LocalSet::new().run_until(schedules()).await;
}

async fn schedules() {
    let seeds = if full() { 42 } else { 6 };
    let mut running = JoinSet::new();
    for seed in 0..seeds {
        if seed >= BESIDE {
            running.join_next().await.unwrap().unwrap();
        }
        // Every third without the guard.
        running.spawn_local(schedule(seed, if seed % 3 == 2 { 0 } else { GRACE }));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

/// Who writes, past the client's link.
pub(crate) struct Writer {
    pub(crate) raw: Gateway,
    pub(crate) random: fastrand::Rng,
    written: u32,
}

impl Writer {
    pub(crate) fn new(raw: Gateway, seed: u64) -> Self {
        Self { raw, random: fastrand::Rng::with_seed(seed), written: 0 }
    }

    fn key(&mut self) -> String {
        format!("{PREFIX}127.0.0.1:{}", self.random.u16(1..=IDS))
    }

    /// Never the same twice, so that each tells which write it is of.
    fn value(&mut self, key: &str) -> Vec<u8> {
        self.written += 1;
        let (address, written) = (key.trim_start_matches(PREFIX), self.written.to_string());
        json!({ "Op": 0, "Addr": address, "Metadata": { "written": written } }).to_string().into_bytes()
    }

    /// One change, of whatever kind.
    pub(crate) async fn change(&mut self) -> io::Result<()> {
        let key = self.key();
        let value = self.value(&key);
        match self.random.u8(0..20) {
            0..8 => self.raw.put(&key, &value, 0).await,
            // Expires by itself: nobody renews it.
            8..11 => {
                let lease = self.raw.grant(2).await?;
                self.raw.put(&key, &value, lease).await
            }
            // Ends for several at once.
            11 => {
                let lease = self.raw.grant(10).await?;
                let other = self.key();
                let other_value = self.value(&other);
                self.raw.put(&key, &value, lease).await?;
                self.raw.put(&other, &other_value, lease).await?;
                self.raw.revoke(lease).await
            }
            12..14 => {
                let mut entries = BTreeMap::from([(key, value)]);
                for _ in 0..2 {
                    let key = self.key();
                    let value = self.value(&key);
                    entries.insert(key, value);
                }
                self.raw.put_many(&entries.into_iter().collect::<Vec<_>>(), 0).await
            }
            14..18 => {
                // Not there: no matter.
                let _ = self.raw.delete(&key).await;
                Ok(())
            }
            18 => self.raw.delete_prefix(PREFIX).await.map(drop),
            _ => {
                // Refused if nothing has been written since the last.
                let _ = self.raw.compact().await;
                Ok(())
            }
        }
    }

    async fn break_link(&mut self, link: &Proxy) {
        match self.random.u8(0..6) {
            0 => link.cut(),
            1 => link.reset(),
            2 => link.blackhole(),
            3 => link.drop_answers(),
            4 => {
                link.latency(Duration::from_millis(self.random.u64(0..300)));
                link.slice(50);
            }
            // Silent first, then found to be broken: what is underway is lost.
            _ => {
                link.blackhole();
                self.pass_time(300).await;
                link.cut();
            }
        }
    }

    /// Up to so many milliseconds.
    pub(crate) async fn pass_time(&mut self, most: u64) {
        sleep(Duration::from_millis(self.random.u64(0..=most))).await;
    }
}

async fn schedule(seed: u64, grace: u64) {
    let (etcd, raw) = start(&[]).await;
    let events = raw.events(PREFIX).await.unwrap();
    let link = Proxy::start(etcd.addr()).await.unwrap();
    let watch = open_at(link.addr(), &format!("?grace={grace}s")).watch(&book());
    let recorder = Recorder::start(watch.clone());
    let mut writer = Writer::new(raw, seed);
    for _ in 0..if full() { 20 } else { 10 } {
        let (changes, pause) = (writer.random.usize(0..12), if writer.random.bool() { 30 } else { 300 });
        for _ in 0..changes {
            writer.change().await.unwrap();
            writer.pass_time(pause).await;
        }
        writer.break_link(&link).await;
        let changes = writer.random.usize(0..5);
        for _ in 0..changes {
            writer.change().await.unwrap();
            writer.pass_time(400).await;
        }
        // Now and then long enough to be noticed.
        if writer.random.u8(0..8) == 0 {
            sleep(secs(10)).await;
        }
        link.heal();
        // And now and then long enough for the guard to let go.
        if writer.random.u8(0..6) == 0 {
            sleep(secs(grace + 1)).await;
        }
    }
    settle(&writer.raw, &watch, seed).await;
    judge(&writer.raw, &events, &recorder, grace, seed).await;
}

/// Checks all that was shown, now that everything is quiet.
pub(crate) async fn judge(raw: &Gateway, events: &Events, recorder: &Recorder, grace: u64, seed: u64) {
    let there = entries(raw).await.unwrap();
    let what = format!("seed {seed}: the watch that is the measure has it all");
    eventually(secs(5), &what, async || replayed(&writes(events)) == there).await;
    let writes = writes(events);
    let shown: Vec<_> = recorder.history().iter().map(|(at, snapshot)| shown(*at, snapshot)).collect();
    measured(&format!("seed {seed}, writes and snapshots"), (writes.len(), shown.len()));
    recorder.check_safety();
    let promises = Promises { grace: secs(grace), skew: secs(1), lag: LAG, whole: true };
    if let Err(unexplained) = check(&writes, &shown, promises) {
        for write in &writes {
            println!("seed {seed}: {:?} {write:?}", write.at.duration_since(shown[0].at));
        }
        for (at, snapshot) in recorder.history() {
            println!("seed {seed}: {:?} {snapshot:?}", at.duration_since(shown[0].at));
        }
        panic!("seed {seed}: {unexplained:?}");
    }
}

/// Waits until the client shows what there is.
pub(crate) async fn settle(raw: &Gateway, watch: &InstanceWatch, seed: u64) {
    // A long outage's pause, a list to verify, and the guard after that.
    let within = secs(20);
    eventually(within, &format!("seed {seed}: all that is there is shown"), async || {
        // A cluster that elects once more answers nothing.
        let (Ok(there), Ok(leases)) = (entries(raw).await, raw.leases().await) else { return false };
        let snapshot = watch.snapshot();
        let held = snapshot.iter().any(callsign_core::Listed::is_held);
        let contents = shown(Instant::now(), &snapshot).listed.into_iter();
        let listed: BTreeMap<_, _> = contents.map(|(id, listing)| (id, listing.content)).collect();
        // None is left that will expire.
        leases.is_empty() && snapshot.freshness().is_fresh() && !held && listed == there
    })
    .await;
}

fn writes(events: &Events) -> Vec<Write> {
    let write = |event: callsign_testkit::etcd::Event| Write {
        at: event.at,
        revision: event.revision,
        id: event.key.trim_start_matches(PREFIX).to_owned(),
        content: event.value.map(|value| content_of(&value)),
    };
    events.so_far().unwrap().into_iter().map(write).collect()
}

async fn entries(raw: &Gateway) -> io::Result<BTreeMap<String, String>> {
    let entries = raw.list(PREFIX).await?.into_iter();
    let content = |entry: Entry| (entry.key.trim_start_matches(PREFIX).to_owned(), content_of(&entry.value));
    Ok(entries.map(content).collect())
}

fn replayed(writes: &[Write]) -> BTreeMap<String, String> {
    let mut last = BTreeMap::new();
    for write in writes {
        last.remove(&write.id);
        last.extend(write.content.clone().map(|content| (write.id.clone(), content)));
    }
    last
}

fn content_of(value: &[u8]) -> String {
    let value: Value = serde_json::from_slice(value).unwrap();
    format!("{} {}", value["Addr"].as_str().unwrap(), value["Metadata"]["written"].as_str().unwrap())
}

fn shown(at: Instant, snapshot: &Snapshot) -> Shown {
    let listing = |listed: &callsign_core::Listed| {
        let written = listed.metadata().get("written").map_or("", String::as_str);
        let content = format!("{} {written}", listed.address());
        (listed.id().to_string(), Listing { content, held: listed.is_held() })
    };
    let (revision, fresh) = (snapshot.revision(), snapshot.freshness().is_fresh());
    Shown { at, revision, fresh, listed: snapshot.iter().map(listing).collect() }
}
