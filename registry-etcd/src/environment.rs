//! [`Environment`]: what `etcdctl` is told by variables, for whatever a URL does not say.

use std::sync::Arc;

use callsign_core::{Access, Address, Credentials, Error, Result, Secret, TlsVariables, Variables};

const ENDPOINTS: &str = "ETCDCTL_ENDPOINTS";
const CA: &str = "ETCDCTL_CACERT";
const CERT: &str = "ETCDCTL_CERT";
const KEY: &str = "ETCDCTL_KEY";
const SKIP_VERIFY: &str = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY";
const USER: &str = "ETCDCTL_USER";
const PASSWORD: &str = "ETCDCTL_PASSWORD";

const TLS: TlsVariables =
    TlsVariables { ca: CA, cert: CERT, key: KEY, server_name: None, verify: (SKIP_VERIFY, false) };

/// The variables, where the URL has the first word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Environment<'a>(pub(crate) Variables<'a>);

impl Environment<'_> {
    /// The endpoints; TLS is switched on in `access` if they are `https`.
    pub(crate) fn endpoints(&self, default_port: u16, access: &mut Access) -> Result<Vec<Address>> {
        let Some(value) = self.0.get(ENDPOINTS) else {
            return Err(Error::invalid(format!(
                "registry URL names no host of etcd, and {ENDPOINTS} is not set: write etcd://127.0.0.1:{default_port}/..."
            )));
        };
        let (mut addresses, mut secure) = (Vec::new(), Vec::new());
        for endpoint in value.split(',').map(str::trim) {
            let (address, tls) = Variables::server(ENDPOINTS, endpoint, default_port)?;
            addresses.push(address);
            secure.extend(tls);
        }
        if secure.contains(&true) {
            access.tls.get_or_insert_default();
        }
        if access.tls.is_some() && secure.contains(&false) {
            return Err(Error::invalid(format!(
                "{ENDPOINTS} has http:// where TLS is spoken to the cluster: write all of them with https://"
            )));
        }
        Ok(addresses)
    }

    /// Fills in what `access` does not say.
    pub(crate) fn complete(&self, name: &str, hosts: &[Address], access: &mut Access) -> Result<()> {
        if let Some(tls) = access.tls.take() {
            access.tls = Some(tls.or(self.0.tls(TLS)?));
        }
        if access.credentials.is_none()
            && let Some(user) = self.0.get(USER)
        {
            let (user, password) = match (user.split_once(':'), self.0.get(PASSWORD)) {
                (Some((user, password)), None) => (user.to_owned(), password.to_owned()),
                (None, Some(password)) => (user, password),
                (None, None) => {
                    return Err(Error::invalid(format!(
                        "{USER} has no password: write NAME:PASSWORD, or set {PASSWORD}"
                    )));
                }
                (Some(_), Some(_)) => {
                    return Err(Error::invalid(format!(
                        "{USER} has a password and {PASSWORD} is set: one of them is the rule"
                    )));
                }
            };
            let credentials =
                Credentials::new(user, Secret::new(password)).map_err(|error| error.context(USER))?;
            access.credentials = Some(Arc::new(credentials));
            // The URL says nothing of a password, so that the error must say where it is from.
            access.check(name, hosts).map_err(|error| error.context(USER))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use callsign_core::{Pem, Tls};

    use super::*;

    fn read(pairs: &[(&str, &str)], mut access: Access) -> Result<(Vec<Address>, Access)> {
        let get =
            |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let environment = Environment(Variables::of(&get));
        let addresses = environment.endpoints(2379, &mut access)?;
        environment.complete("etcd:///", &[], &mut access)?;
        Ok((addresses, access))
    }

    #[tokio::test]
    async fn it_says_what_the_url_does_not() {
        let endpoints = (ENDPOINTS, "10.0.0.1:1, [::1], h");
        let (addresses, access) =
            read(&[endpoints, (CA, "/ca"), (USER, "al:c:d")], Access::default()).unwrap();
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.1:1", "[::1]:2379", "h:2379"]);
        assert_eq!(access.tls, None, "nothing says that TLS is spoken");
        let credentials = access.credentials.unwrap().credentials().await.unwrap();
        assert_eq!((credentials.user(), credentials.password().expose()), ("al", "c:d"));

        let secure = [(ENDPOINTS, "https://h:1/,g"), (CA, "/ca"), (CERT, "/c"), (KEY, "/k")];
        let expected = Tls::default().ca(Pem::file("/ca")).identity(Pem::file("/c"), Pem::file("/k"));
        assert_eq!(read(&secure, Access::default()).unwrap().1.tls, Some(expected));
        let mut access = Access::default();
        access.tls = Some(Tls::default().ca(Pem::file("/own")));
        let expected = Tls::default().ca(Pem::file("/own")).identity(Pem::file("/c"), Pem::file("/k"));
        assert_eq!(read(&secure, access).unwrap().1.tls, Some(expected), "the URL has the first word");
        // Whom the URL trusts is not set aside by a variable.
        let careless = [(ENDPOINTS, "https://h:1"), (SKIP_VERIFY, "true")];
        for (tls, expected) in [
            (Tls::default(), Tls::default().insecure_skip_verify()),
            (Tls::default().ca(Pem::file("/own")), Tls::default().ca(Pem::file("/own"))),
        ] {
            let mut access = Access::default();
            access.tls = Some(tls);
            assert_eq!(read(&careless, access).unwrap().1.tls, Some(expected));
        }
    }

    #[test]
    fn what_is_refused_is_named_and_no_secret_shown() {
        let host = (ENDPOINTS, "h");
        for (pairs, says) in [
            (&[] as &[_], ENDPOINTS),
            (&[(ENDPOINTS, "")], ENDPOINTS),
            (&[(ENDPOINTS, "h,unix://x")], "unix://x"),
            (&[(ENDPOINTS, "h:0")], ENDPOINTS),
            (&[(ENDPOINTS, "http://root:canary@10.0.0.1:2379")], ENDPOINTS),
            (&[(ENDPOINTS, "https://a,http://b")], "http://"),
            (&[host, (USER, "al")], PASSWORD),
            (&[host, (USER, "al:canary"), (PASSWORD, "canary")], "one of them"),
            (&[host, (USER, ":canary")], USER),
            (&[(ENDPOINTS, "https://h"), (CERT, "/c")], KEY),
            (&[(ENDPOINTS, "https://h"), (SKIP_VERIFY, "yes")], SKIP_VERIFY),
        ] {
            let error = read(pairs, Access::default()).unwrap_err();
            assert!(error.to_string().contains(says), "{pairs:?}: {error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}
