//! Which registry is used when nothing else is said.

use std::path::{Path, PathBuf};

/// The registry's URL: the local server of the backend that was built in, or else a directory of this user.
#[must_use]
pub fn registry_url() -> String {
    if cfg!(feature = "etcd") {
        // Go kit's format, so that its services are found, and find ours.
        return "etcd://127.0.0.1:2379/services?format=gokit".to_owned();
    }
    file_url(&own_dir().join("callsign-book"))
}

/// A place that other users of the machine do not write to, where there is one.
fn own_dir() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime.filter(|dir| dir.is_absolute() && dir.is_dir()).unwrap_or_else(std::env::temp_dir)
}

/// The URL of a directory as a registry.
#[must_use]
pub fn file_url(dir: &Path) -> String {
    let mut url = String::from("file://");
    let path = dir.to_string_lossy();
    if !path.starts_with('/') {
        // C:\dir is file:///C:/dir
        url.push('/');
    }
    for c in path.chars() {
        match c {
            '%' => url.push_str("%25"),
            '?' => url.push_str("%3F"),
            '#' => url.push_str("%23"),
            '\\' if cfg!(windows) => url.push('/'),
            c => url.push(c),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_survives_its_url() {
        for dir in ["/tmp/x", "/tmp/a b?c#d%20", "/tmp/书"] {
            let url = callsign::RegistryUrl::parse(&file_url(Path::new(dir))).unwrap();
            assert_eq!((url.scheme(), url.path()), ("file", dir));
        }
    }

    #[test]
    fn the_default_can_be_opened() {
        let url = callsign::RegistryUrl::parse(&registry_url()).unwrap();
        assert_eq!(url.scheme(), if cfg!(feature = "etcd") { "etcd" } else { "file" });
    }
}
