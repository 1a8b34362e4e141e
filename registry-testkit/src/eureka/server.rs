//! [`Eureka`]: how a Eureka server is run.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::net::TcpStream;

use super::Api;
use crate::container::Image;
use crate::pki::Pki;
use crate::ports::Port;
use crate::provider::Provider;
use crate::server::{Kind, Server};
use crate::testbed;

const POM: &str = include_str!("../../testbed/eureka/pom.xml");

/// What makes it quick: whoever stops renewing is gone with his lease, and whatever changes shows at once. Neither is so
/// by default.
const QUICK: &[&str] = &[
    "eureka.server.enable-self-preservation=false",
    "eureka.server.renewal-percent-threshold=0",
    "eureka.server.eviction-interval-timer-in-ms=500",
    "eureka.server.use-read-only-response-cache=false",
    // A change that comes while an answer is being made does not show in it, nor in those after it until another change
    // or this time, which is three minutes by default.
    "eureka.server.response-cache-auto-expiration-in-seconds=1",
];

/// A server, alone or one of two.
#[derive(Debug)]
pub struct Eureka {
    program: PathBuf,
    settings: Vec<String>,
    /// All servers, if there are several.
    peers: Vec<SocketAddr>,
    /// It speaks TLS, so that raw access is none.
    secure: bool,
}

impl Eureka {
    /// The Eureka of the testbed, or that which `CALLSIGN_EUREKA_BIN` names, or in containers `CALLSIGN_EUREKA_IMAGE`, as a
    /// server that is not running yet, with settings for quick tests.
    ///
    /// # Errors
    /// There is no Eureka (the error says how to get it), or no free port.
    pub fn server() -> io::Result<Server<Self>> {
        Self::server_with(&[])
    }

    /// The same with more settings, each as `name=value`.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn server_with(more: &[&str]) -> io::Result<Server<Self>> {
        Server::new(Self::kind(QUICK.iter().chain(more), Vec::new())?)
    }

    /// The same with its own settings, as in production, but for these.
    ///
    /// # Errors
    /// As [`server`](Self::server).
    pub fn as_in_production(but: &[&str]) -> io::Result<Server<Self>> {
        Server::new(Self::kind(but.iter(), Vec::new())?)
    }

    /// One that speaks TLS and wants to see certificates of clients, all signed by `pki`, its own the one called `server`,
    /// which it reads anew when it changes.
    ///
    /// # Errors
    /// As [`server`](Self::server), or the certificate cannot be written.
    pub fn secured(pki: &Pki) -> io::Result<Server<Self>> {
        let own = pki.issue("server", &["127.0.0.1", "localhost"])?;
        let bundle = "spring.ssl.bundle.pem.web";
        let settings = [
            "server.ssl.bundle=web".to_owned(),
            "server.ssl.client-auth=need".to_owned(),
            format!("{bundle}.keystore.certificate=file:{}", own.cert.display()),
            format!("{bundle}.keystore.private-key=file:{}", own.key.display()),
            format!("{bundle}.truststore.certificate=file:{}", pki.ca().display()),
            format!("{bundle}.reload-on-update=true"),
            "spring.ssl.bundle.watch.file.quiet-period=200ms".to_owned(),
        ];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let kind = Self::kind(QUICK.iter().chain(&settings), Vec::new())?;
        Server::new(Self { secure: true, ..kind })
    }

    /// Two that tell each other what they are told, running.
    ///
    /// # Errors
    /// As [`server`](Self::server), or they do not start.
    pub async fn peers() -> io::Result<[Server<Self>; 2]> {
        let ports = [Port::reserve()?, Port::reserve()?];
        let addrs: Vec<_> = ports.iter().map(Port::addr).collect();
        let mut servers = Vec::new();
        for port in ports {
            let kind = Self::kind(QUICK.iter(), addrs.clone())?;
            let mut server = Server::on(kind, port, Port::reserve()?)?;
            server.launch()?;
            servers.push(server);
        }
        for server in &mut servers {
            server.ready().await?;
        }
        servers.try_into().map_err(|_| io::Error::other("not two servers"))
    }

    fn kind<'a>(settings: impl Iterator<Item = &'a &'a str>, peers: Vec<SocketAddr>) -> io::Result<Self> {
        let program = Provider::chosen()?.program("eureka", "CALLSIGN_EUREKA_BIN")?;
        // Of one that is said twice the server would make a list.
        let mut all: Vec<String> = Vec::new();
        for setting in settings {
            let name = setting.split_once('=').map_or(*setting, |(name, _)| name);
            all.retain(|other| other.split_once('=').map_or(&**other, |(other, _)| other) != name);
            all.push((*setting).to_owned());
        }
        Ok(Self { program, settings: all, peers, secure: false })
    }
}

fn url(addr: SocketAddr) -> String {
    format!("http://{addr}{}/", super::BASE)
}

#[async_trait]
impl Kind for Eureka {
    fn name(&self) -> &'static str {
        "Eureka"
    }

    fn command(&self, port: u16, _second: u16, _data: &Path) -> (PathBuf, Vec<OsString>) {
        let own = SocketAddr::from(([127, 0, 0, 1], port));
        let peered = !self.peers.is_empty();
        let mut settings = vec![
            format!("server.port={port}"),
            "server.address=127.0.0.1".to_owned(),
            // Two on one host take themselves for each other by their host's name.
            format!("eureka.server.my-url={}", url(own)),
            format!("eureka.client.register-with-eureka={peered}"),
            format!("eureka.client.fetch-registry={peered}"),
            "logging.level.root=WARN".to_owned(),
            "spring.main.banner-mode=off".to_owned(),
        ];
        if peered {
            let urls: Vec<_> = self.peers.iter().map(|addr| url(*addr)).collect();
            settings.push(format!("eureka.client.service-url.defaultZone={}", urls.join(",")));
        }
        settings.extend(self.settings.iter().cloned());
        (self.program.clone(), settings.into_iter().map(|it| format!("--{it}").into()).collect())
    }

    fn image(&self) -> Image {
        testbed::image("CALLSIGN_EUREKA_IMAGE", || format!("callsign-testbed/eureka:{}", version()))
    }

    async fn answers(&self, addr: SocketAddr) -> bool {
        if self.secure {
            // Its port is open once it serves.
            return TcpStream::connect(addr).await.is_ok();
        }
        Api::new(addr).is_ready().await
    }
}

/// The release of Spring Cloud that the testbed's `pom.xml` names.
fn version() -> &'static str {
    let of = POM.split_once("<spring-cloud.version>").and_then(|(_, rest)| rest.split_once('<'));
    of.expect("pom.xml names a version").0
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_that_of_the_release() {
        assert!(super::version().starts_with("20"), "{}", super::version());
    }
}
