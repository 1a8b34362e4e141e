//! Where an entry lies: [`Place`], and the file names of services and ids.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::model::{InstanceId, ServiceName};

/// The most characters of a name without its extension: a file name has at most 255 bytes.
const MAX: usize = 200;

/// The files of one entry.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) json: PathBuf,
    pub(super) lock: PathBuf,
    /// Hidden, and not `.json`, so that nobody takes it for an entry.
    pub(super) temp: PathBuf,
}

impl Place {
    pub(super) fn new(root: &Path, service: &ServiceName, id: &InstanceId) -> Self {
        Self::of(&service_dir(root, service), &id_stem(id))
    }

    /// That of a file found in a service's directory.
    pub(super) fn of(dir: &Path, stem: &str) -> Self {
        let file = |name: String| dir.join(name);
        Self {
            dir: dir.to_owned(),
            json: file(format!("{stem}.json")),
            lock: file(format!("{stem}.lock")),
            temp: file(format!(".{stem}.tmp")),
        }
    }
}

pub(super) fn service_dir(root: &Path, service: &ServiceName) -> PathBuf {
    root.join(file_name(service.as_str()))
}

/// What an id's files are called, without extension.
pub(super) fn id_stem(id: &InstanceId) -> String {
    file_name(id.as_str())
}

/// The file name of a text, unambiguous on every file system: two texts have the same name only if they are the
/// same. A name that would be too long is cut, and told from others by a hash of the whole.
fn file_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len() + 8);
    for (at, byte) in text.bytes().enumerate() {
        let plain = byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        // A leading dot hides a file, a trailing one is lost on Windows.
        let dot = byte == b'.' && at > 0 && at + 1 < text.len();
        if (plain || dot) && !(at == 0 && is_device(text)) {
            name.push(byte.into());
        } else {
            // Lower case, as two names that differ only in case are one to some file systems.
            let _ = write!(name, "%{byte:02x}");
        }
    }
    if name.len() > MAX {
        name.truncate(MAX - 34);
        let _ = write!(name, "%~{:032x}", fnv1a(text.as_bytes()));
    }
    name
}

/// Whether Windows takes it for a device, with or without an extension.
fn is_device(text: &str) -> bool {
    let base = text.split('.').next().unwrap_or(text).trim_end().to_ascii_lowercase();
    let numbered = |prefix: &str| {
        base.strip_prefix(prefix)
            .is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    matches!(&*base, "con" | "prn" | "aux" | "nul") || numbered("com") || numbered("lpt")
}

/// FNV-1a of 128 bits: the same on every machine and in every version, which std's hashers do not promise.
fn fnv1a(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_or_escaped() {
        for (text, name) in [
            ("10.0.0.1:50051", "10.0.0.1%3a50051"),
            ("[::1]:80", "%5b%3a%3a1%5d%3a80"),
            ("Book", "%42ook"),
            (".hidden", "%2ehidden"),
            ("dot.", "dot%2e"),
            ("..", "%2e%2e"),
            ("a/b\\c", "a%2fb%5cc"),
            ("a%2fb", "a%252fb"),
            ("a b ", "a%20b%20"),
            ("*?\"<>|", "%2a%3f%22%3c%3e%7c"),
            ("con", "%63on"),
            ("nul.txt", "%6eul.txt"),
            ("COM1", "%43%4f%4d1"),
            ("com1", "%63om1"),
            ("console", "console"),
            ("com10", "com10"),
            ("ü", "%c3%bc"),
        ] {
            assert_eq!(file_name(text), name, "{text:?}");
        }
    }

    #[test]
    fn long_names_fit_and_differ() {
        let (a, b) = ("ü".repeat(127) + "a", "ü".repeat(127) + "b");
        assert!(file_name(&a).len() <= MAX && file_name(&"A".repeat(128)).len() <= MAX);
        assert_ne!(file_name(&a), file_name(&b));
        assert_eq!(fnv1a(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
        // Cut in the middle of an escape or not, it cannot be the name of anything short: "%~" is no escape.
        assert!(file_name(&a).contains("%~"));
    }

    #[test]
    fn case_never_decides() {
        assert_ne!(file_name("a").to_lowercase(), file_name("A").to_lowercase());
        assert_eq!(file_name("Xy:Z"), file_name("Xy:Z").to_lowercase());
    }
}
