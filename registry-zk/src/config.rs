//! How a registry in ZooKeeper is opened by URL: [`open`]. Does no network I/O.

use callsign_core::{Access, Error, ErrorKind, Registry, RegistryUrl, Result, Settings};

use crate::builder::{Acl, Parents, ZooKeeper};
use crate::wire::Format;

const DEFAULT_PORT: u16 = 2181;

/// Opens `zk://host:port[,host:port...]/path?key=value`. Does no network I/O.
///
/// The port is 2181 and the path that of the format's own framework (`/services` for `curator` and `gokit`) where the
/// URL does not say; a chroot is a part of the path. Its keys are:
///
/// | key | meaning |
/// |---|---|
/// | `format` | what is written: `curator` (the default), `gokit`, `kratos` or `kitex`; see [`Format`] |
/// | `read` | whose places are read beside the path, with commas between: `kratos,kitex` |
/// | `protocol` | which of a Kratos instance's several endpoints are instances; all of them, unless given |
/// | `acl` | who may read and change the nodes of instances: `world` (the default) or `creator`; see [`Acl`] |
/// | `parents` | what the node of a service is: `persistent` (the default) or `container`; see [`Parents`] |
/// | `ttl` | the timeout of the session that is asked for; ZooKeeper grants 2 to 20 of its ticks |
/// | `grace`, `drain`, `verify` | as in all registries: [`Settings`] |
/// | `password_file` | the password of the user in the URL, read anew for each session |
/// | `insecure_plaintext_password` | `true` lets a password leave this machine in the clear, without TLS |
/// | `ca`, `cert`, `key`, `server_name`, `insecure_skip_verify` | of `zk+tls://`: [`Tls`](callsign_core::Tls) |
///
/// # Errors
/// [`Invalid`](callsign_core::ErrorKind::Invalid): no host, an unknown key, a bad value, a path that ZooKeeper refuses, a
/// password that would leave this machine in the clear, or certificates that are of no use.
/// [`Unsupported`](callsign_core::ErrorKind::Unsupported): TLS, in a build without the feature `tls`; SASL; or no Tokio
/// runtime to run on.
pub fn open(url: &RegistryUrl) -> Result<Registry> {
    let mut query = url.query();
    let mut builder = ZooKeeper::builder()
        .base(url.path())
        .format(query.choice("format", &Format::ALL)?.unwrap_or_default())
        .read(query.choices("read", &Format::ALL)?)
        .acl(query.choice("acl", &[("world", Acl::World), ("creator", Acl::Creator)])?.unwrap_or_default())
        .settings(Settings::default().with_query(&mut query)?);
    let parents = [("persistent", Parents::Persistent), ("container", Parents::Container)];
    builder = builder.parents(query.choice("parents", &parents)?.unwrap_or_default());
    if let Some(protocol) = query.take("protocol") {
        builder = builder.protocol(protocol);
    }
    if query.take("sasl").is_some() {
        let text = format!(
            "registry URL {url} asks for SASL, which this backend does not speak: write {}://USER:PASSWORD@host for \
             ZooKeeper's scheme digest, or show a certificate by cert=FILE and key=FILE of zk+tls://",
            url.scheme()
        );
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    builder.access = Access::from_url(url, &mut query)?;
    query.finish()?;
    builder.hosts = url.hosts(DEFAULT_PORT)?;
    builder.build_named(url.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(url: &str) -> Result<Registry> {
        open(&RegistryUrl::parse(url)?)
    }

    #[tokio::test]
    async fn urls_open_without_a_server() {
        for url in [
            "zk://127.0.0.1",
            "zk://a:1,[::1],c/deep/path?format=kratos&read=kitex,curator&protocol=grpc",
            "zk://al:canary@127.0.0.1/services?acl=creator&parents=container&ttl=5s&grace=1s&drain=0s&verify=10s",
        ] {
            let registry = opened(url).unwrap();
            let shown = format!("{registry:?}");
            assert_eq!(shown, url.split('?').next().unwrap().replace("al:canary@", ""));
        }
        assert_eq!(opened("zk://h?ttl=5s").unwrap().settings().ttl.as_secs(), 5);
    }

    #[tokio::test]
    async fn what_is_refused_is_named_and_no_secret_shown() {
        for (url, says) in [
            ("zk:///services", "names no host"),
            ("zk://h/p?tll=5s", "\"tll\""),
            ("zk://h/p?format=xml", "curator, gokit, kratos, kitex"),
            ("zk://h/p?read=kratos,xml", "read=xml"),
            ("zk://h/p?acl=all", "world, creator"),
            ("zk://h/p?parents=x", "persistent, container"),
            ("zk://h/p?acl=creator", "no user"),
            ("zk://h/a//b", "empty name"),
            ("zk://h/../b", "\"..\""),
            ("zk://h/zookeeper", "own"),
            ("zk://h/a%0Ab", "character"),
            ("zk://al:canary@h/p", "in the clear"),
            ("zk+tls://h/p?cert=/x", if cfg!(feature = "tls") { "key" } else { "feature" }),
            ("zk://h/p?ca=/x", "zk+tls://"),
            ("zk://h/p?sasl=digest-md5", "zk://USER:PASSWORD@host"),
        ] {
            let error = opened(url).unwrap_err();
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
        assert!(ZooKeeper::builder().build().unwrap_err().to_string().contains("host"));
    }

    #[test]
    fn needs_a_runtime() {
        assert_eq!(opened("zk://h").unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
