//! What happens where a framework and callsign meet in one registry, whichever that is.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use callsign::{Instance, Registration, Registry, Snapshot};
use callsign_testkit::peers::Peer;
use callsign_testkit::process::Program;
use callsign_testkit::wait::{ok, until};

use crate::books::{SOON, Served, call, client, server};

/// More than are ever made.
const CALLS: usize = 100_000;

/// A framework, and the registry that it meets us in.
#[derive(Debug)]
pub(crate) struct Meeting {
    pub(crate) peer: Peer,
    pub(crate) addr: SocketAddr,
    pub(crate) url: String,
}

impl Meeting {
    async fn serve(&self) -> (Program, String) {
        let mut theirs = self.peer.serve(self.addr, "book").unwrap();
        let address = theirs.said("registered ", SOON).await;
        (theirs, address)
    }

    fn follow(&self) -> Program {
        self.peer.follow(self.addr, "book").unwrap()
    }

    /// Their client calls until each of these has answered, since it is connected to one before the other; and nobody
    /// else does.
    async fn calls(&self, all: &BTreeSet<String>) {
        let mut caller = self.peer.call(self.addr, "book", CALLS).unwrap();
        let answers = async {
            let mut missing = all.clone();
            while !missing.is_empty() {
                let who = caller.said("answered ", SOON).await;
                assert!(all.contains(&who), "{who} is none of {all:?}");
                missing.remove(&who);
            }
        };
        assert!(tokio::time::timeout(SOON, answers).await.is_ok(), "it never calls all of {all:?}");
    }

    /// A server of theirs and a server of ours, in their format: both sides find both, call both, and see each leave.
    pub(crate) async fn side_by_side(&self, register: impl AsyncFn(&Registry, Instance) -> Registration) {
        let (mut theirs, their_address) = self.serve().await;
        let mut follower = self.follow();
        sees(&mut follower, &[&their_address]).await;

        let (registry, ours) = (ok(callsign::open(&self.url), "open"), Served::start().await);
        let our_address = ours.addr.to_string();
        let registration = register(&registry, Instance::new("book", ours.addr).unwrap()).await;
        sees(&mut follower, &[&our_address, &their_address]).await;
        let mut watch = registry.watch(&"book".parse().unwrap());
        until(&mut watch, SOON, "both are found", |s| s.len() == 2 && s.skipped() == 0).await;

        let both = BTreeSet::from([our_address.clone(), their_address.clone()]);
        assert_eq!(call(watch.clone(), 4).await, both);
        self.calls(&both).await;

        // They leave without a word, so that half of the service is gone at once: no more than that, so not held.
        theirs.end_stdin();
        theirs.said("deregistered ", SOON).await;
        let only_ours = |s: &Snapshot| s.iter().all(|listed| listed.address().to_string() == our_address);
        until(&mut watch, SOON, "they are gone", only_ours).await;
        sees(&mut follower, &[&our_address]).await;
        ok(registration.deregister().await, "deregister");
        // Kratos keeps the last set that was not empty.
        if self.peer != Peer::Kratos {
            sees(&mut follower, &[]).await;
        }
    }

    /// The programs as they are: they call ours, and ours call theirs.
    pub(crate) async fn programs(&self) {
        let (mut theirs, their_address) = self.serve().await;
        let (mut ours, our_address) = server(&self.url).await;
        let mut follower = self.follow();
        sees(&mut follower, &[&our_address, &their_address]).await;
        let both = BTreeSet::from([our_address, their_address.clone()]);
        assert_eq!(client(&self.url, 8).await, both);
        self.calls(&both).await;
        assert!(ours.process.stop(SOON).await.unwrap().success());
        sees(&mut follower, &[&their_address]).await;
        theirs.end_stdin();
        theirs.said("deregistered ", SOON).await;
    }
}

/// Waits until it sees exactly these addresses.
async fn sees(follower: &mut Program, addresses: &[&str]) {
    let mut wanted = addresses.to_vec();
    wanted.sort_unstable();
    let seen = async { while follower.said("set ", SOON).await != wanted.join(",") {} };
    assert!(tokio::time::timeout(SOON, seen).await.is_ok(), "it never sees {wanted:?}");
}
