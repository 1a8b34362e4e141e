//! [`SecuredCluster`]: three members with TLS and users, as production has them.

use std::io;
use std::path::PathBuf;

use tempfile::TempDir;

use super::gateway::Gateway;
use super::member::Etcd;
use super::users::Permission;
use crate::pki::{Identity, Pki};
use crate::proxy::Proxy;
use crate::server::Server;

/// The user that clients are.
const USER: &str = "book";
const ROOT: &str = "password of root";

/// Three members that speak TLS, want to see certificates of clients, and ask who they are. Each is reached through a
/// link of its own.
#[derive(Debug)]
pub struct SecuredCluster {
    /// Who signs everybody's certificates. Those of the members are called `server`, that of clients `client`.
    pub pki: Pki,
    /// The members.
    pub members: [Server<Etcd>; 3],
    /// The links to them, in their order.
    pub links: Vec<Proxy>,
    client: Identity,
    folder: TempDir,
}

impl SecuredCluster {
    /// Starts it, with a user whose password is `password` and who may do everything below `services/` and
    /// `/services/`.
    ///
    /// # Errors
    /// There is no etcd, or it cannot be started.
    pub async fn start(password: &str) -> io::Result<Self> {
        let pki = Pki::new()?;
        let members = Etcd::secured_cluster::<3>(&pki).await?;
        let mut links = Vec::new();
        for member in &members {
            links.push(Proxy::start(member.addr()).await?);
        }
        let client = pki.issue("client", &["client"])?;
        let cluster = Self { pki, members, links, client, folder: tempfile::tempdir()? };
        cluster.write_password(password)?;
        let raw = Etcd::raw(&cluster.members[0]);
        raw.add_user(USER, password).await?;
        let may = [("services/", Permission::ReadWrite), ("/services/", Permission::ReadWrite)];
        raw.add_role("role", &may).await?;
        raw.grant_role(USER, "role").await?;
        raw.enable_auth(ROOT).await?;
        // The gateway of a member connects to the member itself when it is first called, to the one listener or the other as
        // chance has it (etcd's `pickGRPCGatewayServeContext`), and shows the member's certificate: once that has expired it
        // could not, and tests ask it then.
        for member in 0..cluster.members.len() {
            cluster.root(member).await?;
        }
        Ok(cluster)
    }

    /// The URL of a registry in it, with more of a query, by all members, the client's certificate and the file that
    /// has the password.
    #[must_use]
    pub fn url(&self, query: &str) -> String {
        let hosts: Vec<_> = self.links.iter().map(|link| link.addr().to_string()).collect();
        let (ca, file) = (self.pki.ca(), self.password_file());
        format!(
            "etcd+tls://{USER}@{}/services?ca={}&cert={}&key={}&password_file={}&{query}",
            hosts.join(","),
            ca.display(),
            self.client.cert.display(),
            self.client.key.display(),
            file.display()
        )
    }

    /// Raw access by a member, with all rights.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn root(&self, member: usize) -> io::Result<Gateway> {
        let member = self.members.get(member).ok_or_else(|| io::Error::other("there are three members"))?;
        Etcd::raw(member).login("root", ROOT).await
    }

    /// Gives the user's role or takes it away.
    ///
    /// # Errors
    /// The first member does not answer.
    pub async fn permit(&self, may: bool) -> io::Result<()> {
        let root = self.root(0).await?;
        if may { root.grant_role(USER, "role").await } else { root.revoke_role(USER, "role").await }
    }

    /// Changes the user's password in etcd, which ends all of the user's tokens.
    ///
    /// # Errors
    /// The first member does not answer.
    pub async fn change_password(&self, password: &str) -> io::Result<()> {
        self.root(0).await?.change_password(USER, password).await
    }

    /// Changes the password that clients read.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_password(&self, password: &str) -> io::Result<()> {
        std::fs::write(self.password_file(), format!("{password}\n"))
    }

    /// Breaks all connections that there are.
    pub fn reset(&self) {
        self.links.iter().for_each(Proxy::reset);
    }

    fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }
}
