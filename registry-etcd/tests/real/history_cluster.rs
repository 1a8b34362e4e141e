//! The same of a cluster, whose members are cut off from each other in turn while clients reach them all.

use callsign_testkit::conformance::full;
use callsign_testkit::etcd::PartitionedCluster;
use callsign_testkit::proxy::Proxy;
use callsign_testkit::record::Recorder;
use tokio::time::{sleep, timeout};

use crate::history::{PREFIX, Writer, judge, settle};
use crate::{book, open, secs};

/// A member that was cut off hears of writes late, so that their times say nothing of the guard.
const GRACE: u64 = 0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_was_written_whoever_is_in_the_minority() {
    for seed in 0..if full() { 10 } else { 1 } {
        schedule(seed).await;
    }
}

async fn schedule(seed: u64) {
    let cluster = PartitionedCluster::start().await.unwrap();
    cluster.whole().await.unwrap();
    let events = cluster.raw(0).events(PREFIX).await.unwrap();
    let watch = open(&cluster.url(&format!("grace={GRACE}s"))).watch(&book());
    let recorder = Recorder::start(watch.clone());
    let mut writer = Writer::new(cluster.raw(0), seed);
    for round in 0..if full() { 10 } else { 5 } {
        let isolated = writer.random.usize(0..3);
        cluster.isolate(isolated);
        for _ in 0..writer.random.usize(5..40) {
            // By whomever: what the minority is asked to write fails, or is done once it is back.
            writer.raw = cluster.raw(writer.random.usize(0..3));
            let _ = timeout(secs(1), writer.change()).await;
            writer.pass_time(200).await;
        }
        match round % 3 {
            // Only the minority can be reached, which knows less than has been shown.
            0 => {
                let others = || cluster.links.iter().enumerate().filter(|(n, _)| *n != isolated);
                others().for_each(|(_, link)| link.cut());
                sleep(secs(2)).await;
                writer.pass_time(5000).await;
                others().for_each(|(_, link)| link.heal());
            }
            1 => cluster.links.iter().for_each(Proxy::reset),
            _ => {}
        }
        cluster.heal();
        writer.pass_time(3000).await;
    }
    cluster.whole().await.unwrap();
    // What was handed on and is still underway.
    sleep(secs(10)).await;
    let raw = cluster.raw(0);
    settle(&raw, &watch, seed).await;
    judge(&raw, &events, &recorder, GRACE, seed).await;
}
