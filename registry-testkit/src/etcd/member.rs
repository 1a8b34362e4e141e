//! [`Etcd`]: how an etcd is run.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::Gateway;
use crate::container::Image;
use crate::pki::{Identity, Pki};
use crate::ports::Port;
use crate::provider::Provider;
use crate::server::{Kind, Server};
use crate::testbed;

const GO_MOD: &str = include_str!("../../testbed/etcd/go.mod");

/// One member of an etcd, the only one or one of several.
#[derive(Debug)]
pub struct Etcd {
    program: PathBuf,
    name: String,
    /// TLS with certificates of clients, and a port in the clear beside it for [`raw`](Self::raw).
    tls: Option<(Files, Port)>,
    /// All members, as `name=URL,...`; `None` where it is the only one.
    cluster: Option<String>,
    /// Where other members reach it; `None` where that is where it listens.
    peer: Option<SocketAddr>,
    more: Vec<OsString>,
}

impl Etcd {
    /// The etcd of the testbed, or that which `CALLSIGN_ETCD_BIN` names, or in containers `CALLSIGN_ETCD_IMAGE`, as a
    /// server that is not running yet.
    ///
    /// # Errors
    /// There is no etcd (the error says how to get it), or no free port.
    pub fn server() -> io::Result<Server<Self>> {
        Self::server_with(&[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn server_with(more: &[&str]) -> io::Result<Server<Self>> {
        Server::new(Self::member("m0".to_owned(), None, more)?)
    }

    /// One that speaks TLS and wants to see certificates of clients, all signed by `pki`, its own the one called
    /// `server`. It reads that anew for every connection.
    ///
    /// # Errors
    /// As [`server`](Self::server), or the certificate cannot be written.
    pub fn secured(pki: &Pki, more: &[&str]) -> io::Result<Server<Self>> {
        let files = Files::of(pki, "server")?;
        Server::new(Self {
            tls: Some((files, Port::reserve()?)),
            ..Self::member("m0".to_owned(), None, more)?
        })
    }

    /// Several that know each other, running: each answers once a quorum does.
    ///
    /// # Errors
    /// As [`server`](Self::server), or they do not start.
    pub async fn cluster<const N: usize>() -> io::Result<[Server<Self>; N]> {
        Self::cluster_of(None).await
    }

    /// The same, each as [`secured`](Self::secured).
    ///
    /// # Errors
    /// As [`cluster`](Self::cluster).
    pub async fn secured_cluster<const N: usize>(pki: &Pki) -> io::Result<[Server<Self>; N]> {
        Self::cluster_of(Some(Files::of(pki, "server")?)).await
    }

    /// Raw access to a server of this kind.
    #[must_use]
    pub fn raw(server: &Server<Self>) -> Gateway {
        Gateway::new(server.kind().tls.as_ref().map_or(server.addr(), |(_, plain)| plain.addr()))
    }

    async fn cluster_of<const N: usize>(tls: Option<Files>) -> io::Result<[Server<Self>; N]> {
        let mut ports = Vec::new();
        for _ in 0..N {
            ports.push((Port::reserve()?, Port::reserve()?));
        }
        let members: Vec<_> = ports
            .iter()
            .enumerate()
            .map(|(n, (_, second))| format!("m{n}=http://{}", second.addr()))
            .collect();
        let mut servers = Vec::new();
        for (n, (port, second)) in ports.into_iter().enumerate() {
            let mut member = Self::member(format!("m{n}"), Some(members.join(",")), &[])?;
            member.tls =
                tls.clone().map(|files| Ok::<_, io::Error>((files, Port::reserve()?))).transpose()?;
            let mut server = Server::on(member, port, second)?;
            server.launch()?;
            servers.push(server);
        }
        for server in &mut servers {
            server.ready().await?;
        }
        servers.try_into().map_err(|_| io::Error::other("not as many servers as asked for"))
    }

    /// A member of a cluster that other members reach at `peer`, and not where it listens.
    pub(super) fn behind(name: String, cluster: String, peer: SocketAddr) -> io::Result<Self> {
        Ok(Self { peer: Some(peer), ..Self::member(name, Some(cluster), &[])? })
    }

    fn member(name: String, cluster: Option<String>, more: &[&str]) -> io::Result<Self> {
        let program = Provider::chosen()?.program("etcd", "CALLSIGN_ETCD_BIN")?;
        let more = more.iter().map(OsString::from).collect();
        Ok(Self { program, name, tls: None, cluster, peer: None, more })
    }
}

/// What a member that speaks TLS reads.
#[derive(Debug, Clone)]
struct Files {
    ca: PathBuf,
    identity: Identity,
}

impl Files {
    fn of(pki: &Pki, name: &str) -> io::Result<Self> {
        Ok(Self { ca: pki.ca(), identity: pki.issue(name, &["127.0.0.1", "localhost"])? })
    }
}

#[async_trait]
impl Kind for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn command(&self, port: u16, second: u16, data: &Path) -> (PathBuf, Vec<OsString>) {
        let listen_peer = format!("http://127.0.0.1:{second}");
        let peer = self.peer.map_or(listen_peer.clone(), |peer| format!("http://{peer}"));
        let (client, listen) = match &self.tls {
            None => (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{port}")),
            Some((_, plain)) => {
                let client = format!("https://127.0.0.1:{port}");
                (client.clone(), format!("{client},http://{}", plain.addr()))
            }
        };
        let alone = format!("{}={peer}", self.name);
        let pairs = [
            ("--name", self.name.as_str()),
            ("--listen-client-urls", &listen),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &listen_peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", self.cluster.as_ref().unwrap_or(&alone)),
            ("--log-level", "error"),
            // For the test of a value above the usual 1.5 MiB.
            ("--max-request-bytes", "4194304"),
        ];
        let mut arguments: Vec<OsString> =
            pairs.iter().flat_map(|(key, value)| [key.into(), value.into()]).collect();
        // The machine does not crash here, only the process: what it wrote is there when it comes back.
        arguments.extend(["--unsafe-no-fsync".into(), "--data-dir".into(), data.into()]);
        if let Some((files, _)) = &self.tls {
            for (key, file) in [
                ("--trusted-ca-file", &files.ca),
                ("--cert-file", &files.identity.cert),
                ("--key-file", &files.identity.key),
            ] {
                arguments.extend([key.into(), file.into()]);
            }
            arguments.push("--client-cert-auth".into());
        }
        arguments.extend(self.more.iter().cloned());
        (self.program.clone(), arguments)
    }

    fn image(&self) -> Image {
        let version = testbed::version(GO_MOD, "go.etcd.io/etcd/server/v3");
        let image = testbed::image("CALLSIGN_ETCD_IMAGE", || format!("quay.io/coreos/etcd:v{version}"));
        // All of a folder, as files in it are replaced by others of the same name.
        let folders = self.tls.iter().filter_map(|(files, _)| files.ca.parent());
        folders.fold(image, Image::reading)
    }

    async fn answers(&self, addr: SocketAddr) -> bool {
        Gateway::new(self.tls.as_ref().map_or(addr, |(_, plain)| plain.addr())).healthy().await
    }
}
