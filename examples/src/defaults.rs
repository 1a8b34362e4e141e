//! Which registry is used when nothing else is said.

/// The registry's URL: the local server of the backend that was built in, or else a directory of this user.
#[must_use]
pub fn registry_url() -> String {
    if cfg!(feature = "etcd") {
        // Go kit's format, so that its services are found, and find ours.
        return "etcd://127.0.0.1:2379/services?format=gokit".to_owned();
    }
    if cfg!(feature = "consul") {
        return "consul://127.0.0.1:8500".to_owned();
    }
    if cfg!(feature = "eureka") {
        // A server shows what has changed after half a minute at the most: so long it is to be served on.
        return "eureka://127.0.0.1:8761/eureka?poll=5s&drain=35s".to_owned();
    }
    if cfg!(feature = "zk") {
        return "zk://127.0.0.1:2181/services".to_owned();
    }
    callsign::file::own_url()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_can_be_opened() {
        let url = callsign::RegistryUrl::parse(&registry_url()).unwrap();
        let scheme = match () {
            () if cfg!(feature = "etcd") => "etcd",
            () if cfg!(feature = "consul") => "consul",
            () if cfg!(feature = "eureka") => "eureka",
            () if cfg!(feature = "zk") => "zk",
            () => "file",
        };
        assert_eq!(url.scheme(), scheme);
    }
}
