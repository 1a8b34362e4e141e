//! Which registry is used when nothing else is said.

use std::path::PathBuf;

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
    callsign::file::url(&own_dir().join("callsign-book"))
}

/// A place that other users of the machine do not write to, where there is one.
fn own_dir() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime.filter(|dir| dir.is_absolute() && dir.is_dir()).unwrap_or_else(std::env::temp_dir)
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
            () => "file",
        };
        assert_eq!(url.scheme(), scheme);
    }
}
