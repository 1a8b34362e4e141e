//! ZooKeeper: a bare watch of the service's children, the bare client library beneath callsign with the same recursive
//! watch as callsign, callsign, and Go kit.

use std::net::SocketAddr;
use std::time::Duration;

use callsign_testkit::peers::Peer;
use callsign_testkit::process::Program;
use callsign_testkit::server::Server;
use callsign_testkit::zookeeper::ZooKeeper;
use zookeeper_client::{Acls, Client, CreateMode};

use crate::Result;
use crate::measure::{self, Contest};

struct InZooKeeper {
    server: Server<ZooKeeper>,
    writer: Client,
    /// How many have come.
    come: usize,
    /// The node of the one that came last, while it is there.
    last: Option<String>,
}

/// By a session that outlives whatever the others ask of the server.
pub(crate) async fn connect(address: &str) -> Result<Client> {
    Ok(Client::connector().with_session_timeout(Duration::from_secs(40)).connect(address).await?)
}

pub(crate) async fn run(sizes: &[usize]) -> Result<()> {
    let mut server = ZooKeeper::server()?;
    server.start().await?;
    let writer = connect(&server.addr().to_string()).await?;
    measure::run(InZooKeeper { server, writer, come: 0, last: None }, sizes).await
}

/// As callsign registers it.
fn entry(service: &str, address: &str) -> (String, Vec<u8>) {
    let (host, port) = address.split_once(':').unwrap_or_default();
    let value = format!(
        r#"{{"name":"{service}","id":"{address}","address":"{host}","port":{port},"sslPort":null,"payload":null,"registrationTimeUTC":1795440520722,"serviceType":"DYNAMIC","uriSpec":{{"parts":[{{"value":"scheme","variable":true}},{{"value":"://","variable":false}},{{"value":"address","variable":true}},{{"value":":","variable":false}},{{"value":"port","variable":true}}]}}}}"#
    );
    (format!("/services/{service}/{address}"), value.into_bytes())
}

impl Contest for InZooKeeper {
    const CONTESTANTS: [&'static str; 4] =
        ["bare watch of children", "bare recursive watch", "callsign", "Go kit"];
    const RATIOS: [(usize, usize); 3] = [(2, 0), (2, 1), (3, 0)];
    const APART: Duration = Duration::from_millis(220);

    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    async fn fill(&mut self, service: &str, size: usize) -> Result<()> {
        let entries: Vec<_> =
            (1..=size).map(|n| entry(service, &format!("10.0.{}.{}:50051", n >> 8, n & 255))).collect();
        Ok(ZooKeeper::raw(&self.server).put_many(&entries).await?)
    }

    /// One more registers: whoever watches children alone sees no change of what is there.
    async fn change(&mut self, service: &str, _: usize, _: usize) -> Result<()> {
        self.come += 1;
        let (path, value) =
            entry(service, &format!("10.1.{}.{}:50051", (self.come >> 8) & 255, self.come & 255));
        self.writer.create(&path, &value, &CreateMode::Ephemeral.with_acls(Acls::anyone_all())).await?;
        self.last = Some(path);
        Ok(())
    }

    async fn undo(&mut self) -> Result<bool> {
        let Some(path) = self.last.take() else { return Ok(false) };
        self.writer.delete(&path, None).await?;
        Ok(true)
    }

    fn watch(&self, who: usize, address: SocketAddr, service: &str) -> Result<Program> {
        match who {
            0 => measure::own("zk-children", address, service),
            1 => measure::own("zk-recursive", address, service),
            2 => measure::own("zk", address, service),
            _ => Ok(Peer::GoKitZooKeeper.watch(address, service)?),
        }
    }
}
