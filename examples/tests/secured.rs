//! The programs on an etcd as production has it: three members, TLS, users.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::process::Command;
use std::time::Duration;

use callsign_testkit::etcd::SecuredCluster;
use callsign_testkit::process::Program;
use callsign_testkit::wait::eventually;
use tokio::time::sleep;

const SOON: Duration = Duration::from_secs(10);

fn spawn(program: &str, args: &[&str]) -> Program {
    Program::spawn(Command::new(program).args(args).args(["--lang", "en"])).unwrap()
}

async fn server(url: &str) -> Program {
    let args = ["--listen", "127.0.0.1:0", "--registry", url];
    let mut server = spawn(env!("CARGO_BIN_EXE_book-server"), &args);
    server.said("registered ", SOON).await;
    server
}

/// A member dies, the password changes, all certificates are replaced: and no call fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_operators_do_fails_a_call() {
    let mut cluster = SecuredCluster::start("first").await.unwrap();
    let url = cluster.url("format=gokit&ttl=5s&verify=1s&drain=500ms");
    let mut servers = [server(&url).await, server(&url).await];
    let args = ["--registry", &url, "--calls", "0", "--interval", "5"];
    let mut client = spawn(env!("CARGO_BIN_EXE_book-client"), &args);
    client.said("request to: ", SOON).await;

    let registered = async |cluster: &SecuredCluster, member: usize| {
        cluster.root(member).await.unwrap().list("/services/book/").await.unwrap()
    };
    let before = registered(&cluster, 0).await;
    assert_eq!(before.len(), 2);
    for member in 0..3 {
        cluster.members[member].kill();
        // Longer than a registration lives that nobody renews.
        sleep(Duration::from_secs(7)).await;
        assert_eq!(registered(&cluster, (member + 1) % 3).await, before, "member {member}");
        cluster.members[member].start().await.unwrap();
    }

    // In either order: first where clients read it, or first in etcd.
    for (password, file_first) in [("second", true), ("third", false)] {
        if file_first {
            cluster.write_password(password).unwrap();
        }
        cluster.change_password(password).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        cluster.write_password(password).unwrap();
        cluster.reset();
        sleep(Duration::from_secs(3)).await;
    }

    // First clients trust both authorities, then everybody gets a certificate of the new one. (etcd reads at its start
    // whom it trusts.)
    cluster.pki.replace_authority(true).unwrap();
    cluster.pki.issue("server", &["127.0.0.1"]).unwrap();
    for member in 0..3 {
        cluster.members[member].restart().await.unwrap();
        sleep(Duration::from_secs(2)).await;
    }
    cluster.pki.issue("client", &["client"]).unwrap();
    cluster.reset();
    sleep(Duration::from_secs(7)).await;

    // Both are still found by who comes new, with all of the new.
    let now = registered(&cluster, 1).await;
    assert_eq!(now.len(), 2, "{now:?}");
    let args = ["--registry", &url, "--calls", "20"];
    let mut newcomer = spawn(env!("CARGO_BIN_EXE_book-client"), &args);
    newcomer.said("20 calls, 0 failed", SOON).await;

    client.process.terminate().unwrap();
    let said = client.said(" calls, ", SOON).await;
    assert_eq!(said.trim(), "0 failed");
    assert!(client.process.ended(SOON).await.unwrap().success());
    for server in &mut servers {
        assert!(server.process.stop(SOON).await.unwrap().success());
    }
    eventually(SOON, "both have left", async || registered(&cluster, 2).await.is_empty()).await;
}
