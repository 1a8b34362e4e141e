//! [`Events`]: everything that is written below a prefix, as etcd itself tells it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::gateway::{ANSWER, Gateway, number, other, range};

/// One key that was written or removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it was heard of.
    pub at: Instant,
    /// The revision that it made. Several may be of one.
    pub revision: i64,
    /// The key.
    pub key: String,
    /// What was written; `None` if the key was removed, or expired.
    pub value: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Heard {
    events: Vec<Event>,
    ended: Option<String>,
}

/// Listens until it is dropped, in the order of revisions.
#[derive(Debug)]
pub struct Events {
    heard: Arc<Mutex<Heard>>,
    // Owns the task.
    _task: JoinSet<()>,
}

impl Gateway {
    /// Listens at a prefix, from now on.
    ///
    /// # Errors
    /// It is refused, or not answered within 20 s.
    pub async fn events(&self, prefix: &str) -> io::Result<Events> {
        let open = async {
            let mut stream = TcpStream::connect(self.addr()).await?;
            let request = self.request("watch", &json!({ "create_request": range(prefix) }));
            stream.write_all(request.as_bytes()).await?;
            let mut lines = BufReader::new(stream).lines();
            let status = lines.next_line().await?.unwrap_or_default();
            if status.split(' ').nth(1) != Some("200") {
                return Err(other(status));
            }
            while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
            let created = next(&mut lines).await?;
            if created["created"] == true { Ok(lines) } else { Err(other(created.to_string())) }
        };
        let lines =
            timeout(ANSWER, open).await.map_err(|_| other(format!("no answer within {ANSWER:?}")))??;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut task = JoinSet::new();
        task.spawn(listen(lines, Arc::clone(&heard)));
        Ok(Events { heard, _task: task })
    }
}

impl Events {
    /// What was heard so far.
    ///
    /// # Errors
    /// etcd has ended the watch, so that there may be more.
    pub fn so_far(&self) -> io::Result<Vec<Event>> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match &heard.ended {
            None => Ok(heard.events.clone()),
            Some(why) => Err(other(format!("etcd ended the watch: {why}"))),
        }
    }
}

async fn listen(mut lines: Lines<BufReader<TcpStream>>, heard: Arc<Mutex<Heard>>) {
    let heard = || heard.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match next(&mut lines).await.and_then(|said| events_of(&said)) {
            Ok(events) => heard().events.extend(events),
            Err(error) => {
                heard().ended = Some(error.to_string());
                return;
            }
        }
    }
}

/// The next that etcd says, a line each.
async fn next(lines: &mut Lines<BufReader<TcpStream>>) -> io::Result<Value> {
    let line = lines.next_line().await?.ok_or_else(|| other("without a word"))?;
    let mut said: Value = serde_json::from_str(&line).map_err(io::Error::other)?;
    let result = said["result"].take();
    if result.is_null() || result["canceled"] == true { Err(other(line)) } else { Ok(result) }
}

fn events_of(said: &Value) -> io::Result<Vec<Event>> {
    let at = Instant::now();
    let bytes = |value: &Value| BASE64.decode(value.as_str().unwrap_or_default()).map_err(io::Error::other);
    let event = |event: &Value| {
        let kv = &event["kv"];
        Ok(Event {
            at,
            revision: number(&kv["mod_revision"]),
            key: String::from_utf8_lossy(&bytes(&kv["key"])?).into_owned(),
            value: if event["type"] == "DELETE" { None } else { Some(bytes(&kv["value"])?) },
        })
    };
    said["events"].as_array().map_or(&[][..], Vec::as_slice).iter().map(event).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::etcd::Etcd;
    use crate::wait::eventually;

    #[tokio::test]
    async fn hears_everything_in_order_and_that_it_ended() {
        let mut server = Etcd::server().unwrap();
        server.start().await.unwrap();
        let raw = Etcd::raw(&server);
        raw.put("p/before", b"x", 0).await.unwrap();
        let events = raw.events("p/").await.unwrap();
        raw.put("p/a", b"1", 0).await.unwrap();
        raw.put("q/a", b"1", 0).await.unwrap();
        raw.put_many(&[("p/a".to_owned(), b"2".to_vec()), ("p/b".to_owned(), Vec::new())], 0).await.unwrap();
        raw.delete("p/a").await.unwrap();
        let heard = || events.so_far().unwrap();
        eventually(Duration::from_secs(5), "all is heard", async || heard().len() == 4).await;
        let first = heard()[0].revision;
        let said: Vec<_> =
            heard().into_iter().map(|event| (event.revision - first, event.key, event.value)).collect();
        let event = |after, key: &str, value: Option<&str>| {
            (after, key.to_owned(), value.map(|v| v.as_bytes().to_vec()))
        };
        let wanted = [
            event(0, "p/a", Some("1")),
            event(2, "p/a", Some("2")),
            event(2, "p/b", Some("")),
            event(3, "p/a", None),
        ];
        assert_eq!(said, wanted);
        server.kill();
        eventually(Duration::from_secs(5), "the end is noticed", async || events.so_far().is_err()).await;
    }
}
