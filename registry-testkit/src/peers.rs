//! Programs of other frameworks that meet callsign in the same registry, or on the wire: Go kit, gRPC-Go and Kratos,
//! built by `scripts/testbed peers` from `testbed/peers`.

use std::io;
use std::net::SocketAddr;
use std::process::Command;

use crate::process::Program;
use crate::testbed;

/// A framework.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Go kit's `sd/etcdv3`.
    GoKit,
    /// gRPC-Go's naming in etcd.
    Grpc,
    /// etcd's own client, which can only [`watch`](Self::watch).
    Raw,
    /// Go kit's `sd/consul`.
    GoKitConsul,
    /// Kratos' registry in Consul.
    Kratos,
    /// Consul's own client, which can only [`watch`](Self::watch).
    Consul,
    /// Go kit's `sd/zk`.
    GoKitZooKeeper,
    /// Go kit's `sd/eureka`.
    GoKitEureka,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::GoKit => "gokit",
            Self::Grpc => "grpc",
            Self::Raw => "raw",
            Self::GoKitConsul => "gokit-consul",
            Self::Kratos => "kratos",
            Self::Consul => "consul",
            Self::GoKitZooKeeper => "gokit-zk",
            Self::GoKitEureka => "gokit-eureka",
        }
    }

    fn run(self, verb: &str, registry: SocketAddr, service: &str, more: Option<&str>) -> io::Result<Program> {
        let mut command = Command::new(testbed::find("peers", "CALLSIGN_PEERS_BIN")?);
        command.args([verb, self.name(), &registry.to_string(), service]).args(more);
        Program::spawn(&mut command)
    }

    /// Says `listed MICROSECONDS` once, then `seen UNIX_NANOSECONDS` for each change.
    ///
    /// # Errors
    /// There are no peers, or they cannot be run.
    pub fn watch(self, registry: SocketAddr, service: &str) -> io::Result<Program> {
        self.run("watch", registry, service, None)
    }

    /// Says `set ADDRESS,ADDRESS` for each set that it sees, sorted.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn follow(self, registry: SocketAddr, service: &str) -> io::Result<Program> {
        self.run("follow", registry, service, None)
    }

    /// Serves books on a free port, says `registered ADDRESS`, and when its stdin ends `deregistered`.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn serve(self, registry: SocketAddr, service: &str) -> io::Result<Program> {
        self.run("serve", registry, service, Some("127.0.0.1:0"))
    }

    /// Asks for a book so many times, and says `answered ADDRESS` for each.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn call(self, registry: SocketAddr, service: &str, calls: usize) -> io::Result<Program> {
        self.run("call", registry, service, Some(&calls.to_string()))
    }
}

/// gRPC-Go's interop server, registered nowhere, with at most `streams` calls at the same time on each connection, or
/// with as many as there are if that is 0. Says `serving ADDRESS`; when its stdin ends, it finishes what it has.
///
/// # Errors
/// As [`Peer::watch`].
pub fn interop(address: SocketAddr, streams: u32) -> io::Result<Program> {
    let mut command = Command::new(testbed::find("peers", "CALLSIGN_PEERS_BIN")?);
    Program::spawn(command.args(["interop", &address.to_string(), &streams.to_string()]))
}
