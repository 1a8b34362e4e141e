//! etcd: its own client in Go, the bare client library beneath callsign, callsign, and Go kit.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callsign_testkit::etcd::{Etcd, Gateway};
use callsign_testkit::peers::Peer;
use callsign_testkit::process::Program;
use callsign_testkit::server::Server;
use etcd_client::Client;

use crate::Result;
use crate::measure::{self, Contest};

struct InEtcd {
    server: Server<Etcd>,
    writer: Client,
}

pub(crate) async fn run(sizes: &[usize]) -> Result<()> {
    let mut server = Etcd::server()?;
    server.start().await?;
    let writer = Client::connect([server.addr().to_string()], None).await?;
    measure::run(InEtcd { server, writer }, sizes).await
}

fn entry(service: &str, n: usize, weight: usize) -> (String, Vec<u8>) {
    let address = format!("10.{}.{}.{}:50051", n >> 16, (n >> 8) & 255, n & 255);
    let value = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":null,"callsign":{{"weight":{weight}}}}}"#);
    // With the slash, as Go kit has it; callsign reads both.
    (format!("/services/{service}/{address}"), value.into_bytes())
}

/// A weight that was never written: what changes nothing wakes nobody.
fn fresh() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1_000_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Contest for InEtcd {
    const CONTESTANTS: [&'static str; 4] = ["etcd's Go client", "bare etcd-client", "callsign", "Go kit"];
    const RATIOS: [(usize, usize); 3] = [(2, 0), (2, 1), (3, 0)];
    const APART: Duration = Duration::from_millis(220);

    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    async fn fill(&mut self, service: &str, size: usize) -> Result<()> {
        let entries: Vec<_> = (1..=size).map(|n| entry(service, n, 2)).collect();
        let gateway = Gateway::new(self.addr());
        for chunk in entries.chunks(100) {
            gateway.put_many(chunk, 0).await?;
        }
        Ok(())
    }

    async fn change(&mut self, service: &str, size: usize, n: usize) -> Result<()> {
        let (key, value) = entry(service, 1 + n * 7 % size, fresh());
        self.writer.put(key, value, None).await?;
        Ok(())
    }

    fn watch(&self, who: usize, address: SocketAddr, service: &str) -> Result<Program> {
        match who {
            0 => Ok(Peer::Raw.watch(address, service)?),
            1 => measure::own("etcd-bare", address, service),
            2 => measure::own("etcd", address, service),
            _ => Ok(Peer::GoKit.watch(address, service)?),
        }
    }
}
