//! What the tool promises of every registry with a TTL, whichever that is.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{Running, confirmed, free, gone, kill};

pub(crate) fn fresh(line: &Value, count: usize) -> bool {
    line["freshness"]["state"] == "fresh" && confirmed(line).len() == count
}

/// Absent or marked held within the TTL and 2 s, whichever of the two processes is killed. Returns what is shown once the
/// command was.
pub(crate) async fn a_kill_9_of_the_command_or_of_us_takes_it_away(url: &str) -> Value {
    let mut shown = Value::Null;
    let mut watch = Running::start(url, &["watch", "web", "--json"]);
    watch.json("the empty list", |line| fresh(line, 0)).await;
    let ttl = Duration::from_secs(3);
    for kill_us in [false, true] {
        let (_port, port) = free();
        let address = format!("127.0.0.1:{port}");
        let serve = format!("echo pid $$; exec python3 -m http.server {port} --bind 127.0.0.1");
        let args = ["register", "web", &address, "--ttl", "3s", "--", "sh", "-c", &serve];
        let mut web = Running::start(url, &args);
        let server: u32 = web.said("pid ").await.parse().unwrap();
        watch.json("it is there", |line| confirmed(line) == [&*address]).await;
        let begun = Instant::now();
        if kill_us {
            web.child.kill().await.unwrap();
        } else {
            kill(server, Signal::KILL);
            assert_eq!(web.code().await, 137);
        }
        let line = watch.json("it is gone, or held", |line| fresh(line, 0)).await;
        let took = begun.elapsed();
        println!("measured: kill -9 of {}: {took:.1?}", if kill_us { "us" } else { "the command" });
        assert!(took < ttl + Duration::from_secs(2), "{took:?}");
        if !kill_us {
            assert!(took < Duration::from_secs(2), "{took:?}");
            shown = line;
        }
        gone(server).await;
    }
    shown
}
