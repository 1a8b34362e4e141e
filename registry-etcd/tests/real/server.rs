//! A real etcd of a test's own: on free loopback ports, with a data folder that goes with it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The etcd that the tests start, as the environment names it; `etcdctl` is beside it.
fn binary(name: &str) -> PathBuf {
    let etcd =
        std::env::var_os("CALLSIGN_ETCD_BIN").expect("CALLSIGN_ETCD_BIN names the etcd to test against");
    PathBuf::from(etcd).with_file_name(name)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) struct Etcd {
    child: Option<Child>,
    dir: PathBuf,
    data: u32,
    pub(crate) port: u16,
    peer: u16,
    name: String,
    cluster: String,
    more: &'static [&'static str],
}

impl Etcd {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(more: &'static [&'static str]) -> Self {
        let [etcd] = Self::cluster_with(more).await;
        etcd
    }

    pub(crate) async fn cluster<const N: usize>() -> [Self; N] {
        Self::cluster_with(&[]).await
    }

    async fn cluster_with<const N: usize>(more: &'static [&'static str]) -> [Self; N] {
        let peers: [u16; N] = std::array::from_fn(|_| free_port());
        let cluster: Vec<_> =
            peers.iter().enumerate().map(|(n, port)| format!("m{n}=http://127.0.0.1:{port}")).collect();
        let mut members: [Self; N] = std::array::from_fn(|n| {
            let port = free_port();
            let dir = std::env::temp_dir().join(format!("callsign-etcd-{}-{port}", std::process::id()));
            Self {
                child: None,
                dir,
                data: 0,
                port,
                peer: peers[n],
                name: format!("m{n}"),
                cluster: cluster.join(","),
                more,
            }
        });
        members.iter_mut().for_each(Self::spawn);
        for member in &members {
            member.ready().await;
        }
        members
    }

    fn spawn(&mut self) {
        let (client, peer) =
            (format!("http://127.0.0.1:{}", self.port), format!("http://127.0.0.1:{}", self.peer));
        let mut command = Command::new(binary("etcd"));
        command.args(["--name", &self.name, "--initial-cluster", &self.cluster, "--log-level", "error"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.arg("--data-dir").arg(self.dir.join(self.data.to_string()));
        command.args(["--unsafe-no-fsync", "--max-request-bytes", "8000000"]);
        command.args(self.more);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd starts"));
    }

    async fn ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.try_ctl(&["endpoint", "health"]) {
            assert!(Instant::now() < deadline, "etcd does not become healthy");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts again, on the same data.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.spawn();
        self.ready().await;
    }

    /// Starts again, with no data.
    pub(crate) async fn wipe(&mut self) {
        self.kill();
        self.data += 1;
        self.spawn();
        self.ready().await;
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("etcdctl"));
        command
            .arg("--endpoints")
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--command-timeout=2s")
            .args(args);
        command
    }

    pub(crate) fn try_ctl(&self, args: &[&str]) -> bool {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// What etcdctl prints.
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Every key with its value.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let lines = self.ctl(&["get", "--from-key", ""]);
        let lines: Vec<_> = lines.lines().collect();
        lines.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
    }

    pub(crate) fn leases(&self) -> Vec<String> {
        self.ctl(&["lease", "list"]).lines().skip(1).map(str::to_owned).collect()
    }

    pub(crate) fn url(&self, rest: &str) -> String {
        format!("etcd://127.0.0.1:{}{rest}", self.port)
    }

    pub(crate) fn rss_kb(&self) -> u64 {
        rss_kb(&self.child.as_ref().unwrap().id().to_string())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn rss_kb(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
