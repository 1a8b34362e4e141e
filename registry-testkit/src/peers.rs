//! Programs of other frameworks that meet callsign in the same registry: Go kit and gRPC-Go, built by
//! `scripts/testbed peers` from `testbed/peers`.

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
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::GoKit => "gokit",
            Self::Grpc => "grpc",
            Self::Raw => "raw",
        }
    }

    fn run(self, verb: &str, etcd: SocketAddr, service: &str, more: Option<&str>) -> io::Result<Program> {
        let mut command = Command::new(testbed::find("peers", "CALLSIGN_PEERS_BIN")?);
        command.args([verb, self.name(), &etcd.to_string(), service]).args(more);
        Program::spawn(&mut command)
    }

    /// Says `listed MICROSECONDS` once, then `seen UNIX_NANOSECONDS` for each change.
    ///
    /// # Errors
    /// There are no peers, or they cannot be run.
    pub fn watch(self, etcd: SocketAddr, service: &str) -> io::Result<Program> {
        self.run("watch", etcd, service, None)
    }

    /// Says `set ADDRESS,ADDRESS` for each set that it sees, sorted.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn follow(self, etcd: SocketAddr, service: &str) -> io::Result<Program> {
        self.run("follow", etcd, service, None)
    }

    /// Serves books on a free port, says `registered ADDRESS`, and when its stdin ends `deregistered`.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn serve(self, etcd: SocketAddr, service: &str) -> io::Result<Program> {
        self.run("serve", etcd, service, Some("127.0.0.1:0"))
    }

    /// Asks for a book so many times, and says `answered ADDRESS` for each.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    pub fn call(self, etcd: SocketAddr, service: &str, calls: usize) -> io::Result<Program> {
        self.run("call", etcd, service, Some(&calls.to_string()))
    }
}
