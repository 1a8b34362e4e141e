//! Consul: the bare blocking query, callsign, Consul's own client in Go, and Go kit.

use std::net::SocketAddr;
use std::time::Duration;

use callsign_testkit::consul::{Api, Consul};
use callsign_testkit::peers::Peer;
use callsign_testkit::process::Program;
use callsign_testkit::server::Server;
use serde_json::{Value, json};

use crate::Result;
use crate::http::Connection;
use crate::measure::{self, Contest};

/// Machines that the instances are spread over.
const NODES: usize = 50;

struct InConsul {
    server: Server<Consul>,
    writer: Connection,
    /// Where the instance that changes was last: a port that Go kit sees, too.
    port: u16,
}

pub(crate) async fn run(sizes: &[usize]) -> Result<()> {
    let mut server = Consul::server()?;
    server.start().await?;
    let writer = Connection::open(server.addr()).await?;
    measure::run(InConsul { server, writer, port: 10_000 }, sizes).await
}

/// As callsign registers it.
fn entry(service: &str, host: &str, port: u16) -> Value {
    let id = format!("{host}:50051");
    json!({
        "ID": format!("{service}:{id}"), "Address": host, "Port": port,
        "Weights": { "Passing": 1, "Warning": 1 },
        "TaggedAddresses": { "grpc": { "Address": format!("grpc://{host}:{port}"), "Port": port } },
        "Meta": {
            "callsign-incarnation": "00064469c3d00000-00000001", "callsign-id": id, "callsign-protocol": "grpc",
        },
    })
}

impl Contest for InConsul {
    const CONTESTANTS: [&'static str; 4] =
        ["bare blocking query", "callsign", "Consul's Go client", "Go kit"];
    const RATIOS: [(usize, usize); 3] = [(1, 0), (2, 0), (3, 0)];
    // callsign asks again after 100 ms, or after twice the time that it took to read an answer; two times it asks at once.
    const APART: Duration = Duration::from_millis(250);

    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// One instance is the agent's, and the others are in the catalog as if other agents had put them there.
    async fn fill(&mut self, service: &str, size: usize) -> Result<()> {
        let raw = Api::new(self.addr());
        for n in 0..NODES {
            // Without a check of its own: Consul takes those away that its gossip should know and does not.
            let node = json!({ "Node": format!("node-{n}"), "Address": "10.0.0.1" });
            raw.put("catalog/register", &node).await?;
        }
        let others: Vec<_> = (1..size).collect();
        for some in others.chunks(32) {
            let mut ops = Vec::new();
            for n in some {
                let node = format!("node-{}", n % NODES);
                let mut entry = entry(service, &format!("10.1.{}.{}", n / 250, n % 250), 50051);
                entry["Service"] = service.into();
                let check = json!({
                    "Node": node, "CheckID": format!("service:{}", entry["ID"].as_str().unwrap_or_default()),
                    "Name": "callsign", "Status": "passing", "ServiceID": entry["ID"],
                });
                ops.push(json!({ "Service": { "Verb": "set", "Node": node, "Service": entry } }));
                ops.push(json!({ "Check": { "Verb": "set", "Check": check } }));
            }
            raw.put("txn", &json!(ops)).await?;
        }
        self.change(service, size, 0).await?;
        while raw.alive(service).await?.len() < size {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn change(&mut self, service: &str, _: usize, _: usize) -> Result<()> {
        self.port += 1;
        let mut entry = entry(service, "10.2.0.1", self.port);
        entry["Name"] = service.into();
        entry["Check"] = json!({ "TTL": "1h", "Status": "passing" });
        self.writer.ask("PUT", "/v1/agent/service/register", &entry.to_string()).await?;
        Ok(())
    }

    fn watch(&self, who: usize, address: SocketAddr, service: &str) -> Result<Program> {
        match who {
            0 => measure::own("consul-bare", address, service),
            1 => measure::own("consul", address, service),
            2 => Ok(Peer::Consul.watch(address, service)?),
            _ => Ok(Peer::GoKitConsul.watch(address, service)?),
        }
    }
}
