//! [`SecuredServer`]: a ZooKeeper with TLS, as production has it; and [`Flagged`], one whose Java has settings of its own.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::{Raw, ZooKeeper};
use crate::container::Image;
use crate::pki::{Identity, Pki};
use crate::ports::Port;
use crate::proxy::Proxy;
use crate::server::{Kind, Server};

/// The names that the server's certificate is for.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];
/// How long it may take until it speaks TLS, once it answers in the clear.
const START: Duration = Duration::from_secs(20);

/// A server that speaks TLS at one port, where it wants to see certificates of clients, and in the clear at another, for
/// [`Raw`]. The first is reached through a link.
#[derive(Debug)]
pub struct SecuredServer {
    /// Who signs everybody's certificates. That of clients is called `client`.
    pub pki: Pki,
    /// The link to where it speaks TLS.
    pub link: Proxy,
    /// The server itself.
    pub server: Server<ZooKeeper>,
    /// The certificate that clients show.
    pub client: Identity,
    folder: TempDir,
}

/// What clients of such a server show, and the files of its own.
#[derive(Debug)]
pub(super) struct Shown {
    pki: Pki,
    client: Identity,
    _folder: TempDir,
}

impl Shown {
    pub(super) fn files(&self) -> String {
        files(&self.pki, &self.client)
    }
}

impl SecuredServer {
    /// Starts it.
    ///
    /// # Errors
    /// There is no ZooKeeper, or it cannot be started.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more lines of its configuration.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(more: &[&str]) -> io::Result<Self> {
        let (pki, folder) = (Pki::new()?, tempfile::Builder::new().prefix("callsign-test-").tempdir()?);
        keep(&pki.issue("server", &NAMES)?, folder.path())?;
        let (port, second) = (Port::reserve()?, Port::reserve()?);
        let mut lines = vec![
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
            "secureClientPortAddress=127.0.0.1".to_owned(),
            format!("secureClientPort={}", second.number()),
            "ssl.keyStore.type=PEM".to_owned(),
            format!("ssl.keyStore.location={}", keystore(folder.path()).display()),
            "ssl.trustStore.type=PEM".to_owned(),
            format!("ssl.trustStore.location={}", pki.ca().display()),
            "ssl.clientAuth=need".to_owned(),
        ];
        lines.extend(more.iter().map(ToString::to_string));
        let mut server = Server::on(ZooKeeper::with(lines)?, port, second)?;
        server.start().await?;
        // The port in the clear opens first.
        let begun = Instant::now();
        while let Err(error) = TcpStream::connect(server.second().addr()).await {
            if begun.elapsed() > START {
                return Err(io::Error::other(format!(
                    "no TLS ({error}); its log ends in:\n{}",
                    server.log()
                )));
            }
            sleep(Duration::from_millis(10)).await;
        }
        let link = Proxy::start(server.second().addr()).await?;
        let client = pki.issue("client", &["client"])?;
        Ok(Self { pki, link, server, client, folder })
    }

    /// Where it speaks TLS.
    #[must_use]
    pub fn secure_addr(&self) -> SocketAddr {
        self.server.second().addr()
    }

    /// Raw access, in the clear.
    #[must_use]
    pub fn raw(&self) -> Raw {
        ZooKeeper::raw(&self.server)
    }

    /// The URL of a registry in it, through the link and with the client's certificate, with more of a query.
    #[must_use]
    pub fn url(&self, query: &str) -> String {
        format!("zk+tls://{}/services?{}&{query}", self.link.addr(), self.files())
    }

    /// The query that shows the client's certificate.
    #[must_use]
    pub fn files(&self) -> String {
        files(&self.pki, &self.client)
    }

    /// The server and the link to where it speaks TLS, for a fixture.
    pub(super) fn into_parts(self) -> (Server<ZooKeeper>, Proxy, Shown) {
        let Self { pki, link, server, client, folder } = self;
        (server, link, Shown { pki, client, _folder: folder })
    }

    /// Gives the server a new certificate, which it shows from the next connection on. One that has expired, if `expired`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn replace_certificate(&self, expired: bool) -> io::Result<()> {
        let pki = &self.pki;
        let issued = if expired { pki.issue_expired("server", &NAMES) } else { pki.issue("server", &NAMES) };
        keep(&issued?, self.folder.path())
    }
}

fn files(pki: &Pki, client: &Identity) -> String {
    let (ca, cert, key) = (pki.ca(), &client.cert, &client.key);
    format!("ca={}&cert={}&key={}", ca.display(), cert.display(), key.display())
}

fn keystore(folder: &Path) -> PathBuf {
    folder.join("keystore.pem")
}

/// A key and its certificate in one file, as ZooKeeper reads them, replaced at once.
fn keep(identity: &Identity, folder: &Path) -> io::Result<()> {
    let both = std::fs::read_to_string(&identity.key)? + &std::fs::read_to_string(&identity.cert)?;
    let new = folder.join("new");
    std::fs::write(&new, both)?;
    std::fs::rename(new, keystore(folder))
}

/// A server that is alone, with flags for its Java, as `-Djute.maxbuffer=4194304`.
#[derive(Debug)]
pub struct Flagged {
    zookeeper: ZooKeeper,
    flags: String,
}

impl Flagged {
    /// One that is not running yet.
    ///
    /// # Errors
    /// As [`ZooKeeper::server`].
    pub fn server(flags: &str) -> io::Result<Server<Self>> {
        Server::new(Self { zookeeper: ZooKeeper::with(Vec::new())?, flags: flags.to_owned() })
    }
}

#[async_trait]
impl Kind for Flagged {
    fn name(&self) -> &'static str {
        self.zookeeper.name()
    }

    fn prepare(&self, port: u16, second: u16, data: &Path) -> io::Result<()> {
        self.zookeeper.prepare(port, second, data)
    }

    fn command(&self, port: u16, second: u16, data: &Path) -> (PathBuf, Vec<OsString>) {
        let (program, arguments) = self.zookeeper.command(port, second, data);
        // Java itself reads this, whichever script starts it.
        let flags = format!("JDK_JAVA_OPTIONS={}", self.flags);
        let env = [OsString::from(flags), program.into()].into_iter().chain(arguments);
        ("env".into(), env.collect())
    }

    fn image(&self) -> Image {
        self.zookeeper.image()
    }

    async fn answers(&self, addr: SocketAddr) -> bool {
        self.zookeeper.answers(addr).await
    }
}
