//! How a registry in etcd is opened by URL: [`open`]. Does no network I/O.

use callsign_core::{Access, Registry, RegistryUrl, Result, Settings, Variables};

use crate::builder::Etcd;
use crate::environment::Environment;
use crate::wire::Format;

const DEFAULT_PORT: u16 = 2379;

/// Opens `etcd://host:port[,host:port...]/prefix?key=value`. Does no network I/O.
///
/// The port is 2379 and the prefix that of the format's own framework (`/services` for `grpc` and `gokit`) where the
/// URL does not say. Its keys are:
///
/// | key | meaning |
/// |---|---|
/// | `format` | what is written: `grpc` (the default), `gokit`, `kratos`, `kitex`, `gomicro` or `gozero`; see [`Format`] |
/// | `read` | whose places are read beside the prefix, with commas between: `kratos,kitex` |
/// | `protocol` | which of a Kratos instance's several endpoints are instances; all of them, unless given |
/// | `ttl`, `grace`, `drain`, `verify` | as in all registries: [`Settings`] |
/// | `ca`, `cert`, `key`, `server_name`, `insecure_skip_verify` | of `etcd+tls://`: [`Tls`](callsign_core::Tls) |
/// | `password_file` | the password of the user in the URL, read anew whenever etcd wants it |
/// | `insecure_plaintext_password` | `true` lets a password leave this machine without TLS |
///
/// Where the URL does not say, the environment does, as for `etcdctl`: `ETCDCTL_ENDPOINTS` if there is no host;
/// `ETCDCTL_USER` and `ETCDCTL_PASSWORD` if there is no user; and where TLS is spoken, because the URL or an endpoint
/// says so, `ETCDCTL_CACERT`, `ETCDCTL_CERT`, `ETCDCTL_KEY` and `ETCDCTL_INSECURE_SKIP_TLS_VERIFY`.
///
/// # Errors
/// [`Invalid`](callsign_core::ErrorKind::Invalid): no host, an unknown key, a bad value, a file of certificates or of a
/// password that is of no use, or a password that would leave this machine in the clear.
/// [`Unsupported`](callsign_core::ErrorKind::Unsupported): TLS, in a build without the feature `tls`; or no Tokio
/// runtime to run on.
pub fn open(url: &RegistryUrl) -> Result<Registry> {
    open_with(url, Environment(Variables::of_process()))
}

fn open_with(url: &RegistryUrl, environment: Environment<'_>) -> Result<Registry> {
    let mut query = url.query();
    let mut builder = Etcd::builder()
        .prefix(url.path())
        .format(query.choice("format", &Format::ALL)?.unwrap_or_default())
        .read(query.choices("read", &Format::ALL)?)
        .settings(Settings::default().with_query(&mut query)?);
    if let Some(protocol) = query.take("protocol") {
        builder = builder.protocol(protocol);
    }
    builder.access = Access::from_url(url, &mut query)?;
    query.finish()?;
    if url.has_hosts() {
        builder.endpoints = url.hosts(DEFAULT_PORT)?;
    } else {
        builder.endpoints = environment.endpoints(DEFAULT_PORT, &mut builder.access)?;
    }
    let name = url.to_string();
    environment.complete(&name, &builder.endpoints, &mut builder.access)?;
    builder.build_named(name)
}

#[cfg(test)]
mod tests {
    use callsign_core::ErrorKind;

    use super::*;

    fn opened(url: &str) -> Result<Registry> {
        open_with(&RegistryUrl::parse(url)?, Environment(Variables::of(&|_| None)))
    }

    #[tokio::test]
    async fn urls_open_without_a_server() {
        for url in [
            "etcd://127.0.0.1",
            "etcd://127.0.0.1:1/services?format=gokit&ttl=5s&grace=1s&drain=0s&verify=10s",
            "etcd://a:1,[::1],c/deep/prefix/?format=grpc",
            "etcd://127.0.0.1?format=kitex&read=kratos,gozero&protocol=grpc",
        ] {
            let registry = opened(url).unwrap();
            assert_eq!(format!("{registry:?}"), url.split('?').next().unwrap());
        }
        let registry = opened("etcd://h?ttl=5s&drain=1s").unwrap();
        assert_eq!((registry.settings().ttl.as_secs(), registry.settings().drain.as_secs()), (5, 1));
    }

    #[tokio::test]
    async fn what_is_refused_is_named_and_no_secret_shown() {
        for (url, says) in [
            ("etcd:///services", "ETCDCTL_ENDPOINTS"),
            ("etcd://h/p?tll=5s", "\"tll\""),
            ("etcd://h/p?tll=5s", "drain, format, grace, insecure_"),
            ("etcd://h/p?format=xml", "grpc, gokit, kratos, kitex, gomicro, gozero"),
            ("etcd://h/p?read=kratos,xml", "read=xml"),
            ("etcd://h/p?ttl=1", "duration"),
            ("etcd://h:0/p", "port 0"),
            ("etcd://h/a%0Ab", "control"),
            ("etcd://al:canary@h/p", "in the clear"),
            ("etcd://al@127.0.0.1/p", "no password"),
            (
                "etcd+tls://h/p?ca=/nowhere/ca.pem",
                if cfg!(feature = "tls") { "/nowhere/ca.pem" } else { "feature" },
            ),
        ] {
            let error = opened(url).unwrap_err();
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
        assert!(Etcd::builder().build().unwrap_err().to_string().contains("endpoint"));
    }

    #[test]
    fn needs_a_runtime() {
        assert_eq!(opened("etcd://h").unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
