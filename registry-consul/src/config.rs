//! How a registry in Consul is opened by URL: [`open`]. Does no network I/O.

use callsign_core::{Access, Address, Error, Registry, RegistryUrl, Result, Target, Variables};

use crate::builder::{Builder, default_settings};
use crate::check::Check;
use crate::environment::Environment;
use crate::query::{Consistency, Scope};
use crate::token::Token;
use crate::wire::{Format, Taking};

const DEFAULT_PORT: u16 = 8500;

/// Opens `consul://host:port/base?key=value`: the agent to talk to, usually that of this machine. Does no network I/O.
///
/// The port is 8500 where the URL does not say, and the path is empty unless a proxy has the agent below one. The keys:
///
/// | key | meaning |
/// |---|---|
/// | `format` | what is written: `callsign` (the default) or `kratos`; see [`Format`] |
/// | `check` | how Consul knows that what is registered lives: `ttl` (the default), `tcp`, `grpc`, `grpc:SERVICE` or `http:/PATH`; see [`Check`] |
/// | `socket` | the agent's socket in the file system, instead of a host |
/// | `datacenter`, `namespace`, `partition` | which part of Consul is meant; the agent's own, unless given |
/// | `consistency` | how the catalog is read: `default`, `consistent`, `stale` or `cached`; see [`Consistency`] |
/// | `tags`, `filter`, `near` | what is found: with all of these tags, what a filter holds for, the nearest first |
/// | `warnings` | `true` finds also what others registered and what has a check that warns |
/// | `protocol` | which of an instance's several endpoints are instances; all of them, unless given |
/// | `token_file` | the file that has the ACL token, read anew for every request |
/// | `ttl`, `grace`, `drain`, `verify` | as in all registries: [`Settings`](callsign_core::Settings); `ttl` is 15 s by default |
/// | `ca`, `cert`, `key`, `server_name`, `insecure_skip_verify` | of `consul+tls://`: [`Tls`](callsign_core::Tls) |
/// | `password_file`, `insecure_plaintext_password` | the same for the password of the URL's user, which is the ACL token |
///
/// Where the URL does not say, the environment does, as for Consul's own tools: `CONSUL_HTTP_ADDR` if there is no host,
/// `CONSUL_HTTP_TOKEN`, `CONSUL_HTTP_TOKEN_FILE`, `CONSUL_NAMESPACE`, `CONSUL_PARTITION`, and where TLS is spoken
/// `CONSUL_CACERT`, `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY`, `CONSUL_TLS_SERVER_NAME` and `CONSUL_HTTP_SSL_VERIFY`.
///
/// # Errors
/// [`Invalid`](callsign_core::ErrorKind::Invalid): several hosts, an unknown key, a bad value, a file that is of no use,
/// or a token that would leave this machine in the clear.
/// [`Unsupported`](callsign_core::ErrorKind::Unsupported): TLS, in a build without the feature `tls`; or no Tokio
/// runtime to run on.
pub fn open(url: &RegistryUrl) -> Result<Registry> {
    open_with(url, Environment(Variables::of_process()))
}

fn open_with(url: &RegistryUrl, environment: Environment<'_>) -> Result<Registry> {
    let mut query = url.query();
    let format = query.choice("format", &Format::ALL)?.unwrap_or_default();
    let consistency = query.choice("consistency", &Consistency::ALL)?.unwrap_or_default();
    let taking =
        Taking { warnings: query.flag("warnings")?.unwrap_or(false), protocol: query.take("protocol") };
    let tags = query.take("tags").map(|tags| tags.split(',').map(str::to_owned).collect());
    let scope = Scope {
        taking,
        consistency,
        tags: tags.unwrap_or_default(),
        filter: query.take("filter"),
        near: query.take("near"),
    };
    let [datacenter, namespace, partition, token_file, socket] =
        ["datacenter", "namespace", "partition", "token_file", "socket"].map(|key| query.take(key));
    let check = query.take("check").map_or(Ok(Check::default()), |check| check.parse())?;
    let settings = default_settings().with_query(&mut query)?;
    let mut access = Access::from_url(url, &mut query)?;
    query.finish()?;
    let agent = match (url.has_hosts(), socket) {
        (true, None) => Target::Tcp(only_host(url)?),
        (false, Some(socket)) => Target::Unix(socket.into()),
        (true, Some(_)) => {
            return Err(Error::invalid(format!(
                "registry URL {url} has a host and socket: one of them is where the agent listens; for a socket, write \
                 consul:///?socket=FILE"
            )));
        }
        (false, None) => {
            let (agent, secure) = environment.agent(DEFAULT_PORT)?;
            if secure {
                access.tls.get_or_insert_default();
            }
            agent
        }
    };
    let token = match (&access.credentials, token_file) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid(format!(
                "registry URL {url} has a password and token_file: one of them is the ACL token"
            )));
        }
        (Some(credentials), None) => Token::Provider(std::sync::Arc::clone(credentials)),
        (None, Some(file)) => Token::File(file.into()),
        (None, None) => Token::None,
    };
    let mut builder =
        Builder::new(agent).base_path(url.path()).format(format).check(check).settings(settings);
    builder.place.datacenter = datacenter;
    builder.place.namespace = namespace;
    builder.place.partition = partition;
    (builder.scope, builder.access, builder.token) = (scope, access, token);
    environment.complete(&mut builder)?;
    builder.build_named(url.to_string())
}

fn only_host(url: &RegistryUrl) -> Result<Address> {
    let mut hosts = url.hosts(DEFAULT_PORT)?.into_iter();
    match (hosts.next(), hosts.next()) {
        (Some(agent), None) => Ok(agent),
        _ => Err(Error::invalid(format!(
            "registry URL {url} has several hosts: an instance is registered with one agent, usually that of its own \
             machine, consul://127.0.0.1:{DEFAULT_PORT}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(url: &str) -> Result<Registry> {
        open_with(&RegistryUrl::parse(url)?, Environment(Variables::of(&|_| None)))
    }

    #[tokio::test]
    async fn urls_open_without_an_agent() {
        for url in [
            "consul://127.0.0.1",
            "consul:///",
            "consul://[::1]:8500/proxy?datacenter=dc2&ttl=5s&format=kratos&consistency=stale&warnings=true",
            "consul:///?socket=/run/consul.sock&check=http:/health",
            "consul:///?socket=/run/consul.sock&token_file=/x",
            "consul://127.0.0.1?tags=a,b&filter=Service.Port==1&near=_agent&protocol=grpc",
        ] {
            let registry = opened(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(format!("{registry:?}"), url.split('?').next().unwrap());
        }
        assert_eq!(opened("consul://h").unwrap().settings().ttl.as_secs(), 15);
    }

    #[tokio::test]
    async fn what_is_refused_is_named_and_no_secret_shown() {
        for (url, says) in [
            ("consul://a,b", "one agent"),
            ("consul://h?tll=5s", "\"tll\""),
            ("consul://h?consistency=often", "default, consistent, stale, cached"),
            ("consul://h?check=script:rm", "http:/PATH"),
            ("consul://h?socket=/run/consul.sock", "one of them"),
            (
                "consul+tls:///?socket=/run/consul.sock",
                if cfg!(feature = "tls") { "leave +tls out" } else { "feature" },
            ),
            ("consul://h?format=xml", "callsign, kratos"),
            ("consul://x:canary@h", "in the clear"),
            ("consul://x:canary@127.0.0.1?token_file=/x", "one of them"),
            ("consul://h?token_file=/x", "in the clear"),
        ] {
            let error = opened(url).unwrap_err();
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
        opened("consul://x:canary@127.0.0.1").unwrap();
    }

    #[tokio::test]
    async fn the_environment_speaks_where_the_url_is_silent() {
        let variables = |name: &str| {
            let value = match name {
                "CONSUL_HTTP_ADDR" => "10.0.0.1:8501",
                "CONSUL_HTTP_TOKEN" => "canary",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let url = RegistryUrl::parse("consul:///").unwrap();
        let error = open_with(&url, Environment(Variables::of(&variables))).unwrap_err();
        assert!(error.to_string().contains("10.0.0.1:8501") && !format!("{error:?}").contains("canary"));
        let url = RegistryUrl::parse("consul://127.0.0.1").unwrap();
        open_with(&url, Environment(Variables::of(&variables))).unwrap();
        let url = RegistryUrl::parse("consul:///").unwrap();
        for (addr, says) in [
            ("unix:///run/consul.sock", ""),
            ("https://h:1", if cfg!(feature = "tls") { "" } else { "feature" }),
            ("ftp://h", "ftp://h"),
            ("al:canary@h", "CONSUL_HTTP_ADDR"),
        ] {
            let variables = |name: &str| (name == "CONSUL_HTTP_ADDR").then(|| addr.to_owned());
            let error = open_with(&url, Environment(Variables::of(&variables)))
                .err()
                .map(|error| format!("{error:?}"));
            assert!(
                error.is_some() != says.is_empty()
                    && error.is_none_or(|error| error.contains(says) && !error.contains("canary")),
                "{addr}"
            );
        }
    }
}
