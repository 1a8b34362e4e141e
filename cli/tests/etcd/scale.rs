//! Many instances, and many changes.

use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::start;
use crate::support::{DEADLINE, Running};

const INSTANCES: usize = 10_000;
const SECONDS: usize = 5;
/// Hundredths of a second.
const CHANGES: u64 = 10;

fn entry(n: usize, weight: usize) -> (String, Vec<u8>) {
    let address = format!("10.{}.{}.{}:50051", n >> 16, (n >> 8) & 255, n & 255);
    let value = format!(
        r#"{{"Op":0,"Addr":"{address}","Metadata":{{"team":"library"}},"callsign":{{"weight":{weight},"zone":"eu-1"}}}}"#
    );
    (format!("services/book/{address}"), value.into_bytes())
}

/// The most memory it ever had, in MB.
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024 / 1_000_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_instances_and_a_hundred_changes_a_second() {
    let (_etcd, raw, url) = start("").await;
    let entries: Vec<_> = (1..=INSTANCES).map(|n| entry(n, 2)).collect();
    raw.put_many(&entries, 0).await.unwrap();
    let mut slow = Running::start(&url, &["watch", "book", "--json"]);
    let mut watch = Running::start(&url, &["watch", "book", "--json"]);
    let first = tokio::time::timeout(DEADLINE, watch.out.next_line()).await.unwrap().unwrap().unwrap();
    let line: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(line["instances"].as_array().unwrap().len(), INSTANCES);

    let changes = async {
        let mut tick = interval(Duration::from_millis(CHANGES));
        for n in 0..SECONDS * 100 {
            tick.tick().await;
            let (key, value) = entry(1 + n * 7 % INSTANCES, 1_000 + n);
            raw.put(&key, &value, 0).await.unwrap();
        }
    };
    let begun = Instant::now();
    // As text: to take 10,000 instances apart ten times a second is more than watching them.
    let mut arrivals = Vec::new();
    let last = format!(r#""weight":{},"#, 1_000 + SECONDS * 100 - 1);
    let reading = async {
        loop {
            let line = watch.out.next_line().await.unwrap().unwrap();
            arrivals.push(Instant::now());
            if line.contains(&last) {
                return line;
            }
        }
    };
    let (line, ()) =
        tokio::time::timeout(DEADLINE * 3, async { tokio::join!(reading, changes) }).await.unwrap();
    let took = begun.elapsed();
    let memory = peak(watch.child.id().unwrap());
    println!(
        "measured: {} changes in {took:.1?}: {} lines of {} kB, {memory} MB at most",
        SECONDS * 100,
        arrivals.len(),
        line.len() / 1000
    );
    // Any eleven in a row take a second, but for what the pipe and a busy machine push together.
    let most = took.as_secs_f64() * 10.0 + 2.0;
    assert!((arrivals.len() as f64) <= most, "{} lines in {took:?}", arrivals.len());
    assert!(arrivals.len() >= SECONDS, "{} lines in {took:?}", arrivals.len());
    assert!(memory <= 64, "{memory} MB");

    // Nobody has read from this one: it held up no more than its own output, and goes on with what is now.
    let mut lines = 0;
    let line = slow.json("the last change", |line| {
        lines += 1;
        line["instances"].as_array().unwrap().iter().any(|one| one["weight"] == 1_000 + SECONDS * 100 - 1)
    });
    let line = line.await;
    assert_eq!(line["freshness"]["state"], "fresh", "{}", line["freshness"]);
    let memory = peak(slow.child.id().unwrap());
    println!("measured: a reader who slept: {lines} lines, {memory} MB at most");
    assert!(lines <= 3 && memory <= 64, "{lines} lines, {memory} MB");
}
