//! [`Keys`]: which keys an instance is written to and which prefixes are read. Pure.

use callsign_core::{InstanceId, ServiceName};
use percent_encoding::percent_decode;

use crate::wire::Format;

/// Where instances are: below one prefix with a leading slash, and the same without, and below the places of other
/// frameworks that are to be read too.
///
/// etcd's Go naming client strips the slash, Go kit keeps it, so both are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Both prefixes of ours, without and with the slash, then the others'; each ends in a slash, but that of a
    /// framework without a prefix, which is empty.
    roots: Vec<String>,
}

impl Keys {
    /// Keys below `base`, whose leading and trailing slashes say nothing; empty for none. `read` are the frameworks
    /// whose own places are read too.
    pub(crate) fn new(base: &str, read: &[Format]) -> Self {
        let base = base.trim_matches('/');
        let mut roots = match base {
            "" => vec![String::new(), "/".to_owned()],
            base => vec![format!("{base}/"), format!("/{base}/")],
        };
        for format in read {
            let root = format.default_root();
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        Self { roots }
    }

    /// Every prefix that is read.
    pub(crate) fn roots(&self) -> &[String] {
        &self.roots
    }

    /// Those below which services can be told apart: where a framework has no prefix, all of etcd is below it.
    pub(crate) fn roots_of_services(&self) -> impl Iterator<Item = (usize, &str)> {
        let roots = self.roots.iter().map(String::as_str).enumerate();
        // The first two are ours, and meant to be looked at even if that is all of etcd.
        roots.filter(|(side, root)| *side < 2 || !root.is_empty())
    }

    /// Which of the prefixes is the other spelling of the one that a format writes below.
    pub(crate) fn other_side(format: Format) -> usize {
        usize::from(!format.has_slash())
    }

    /// The prefix that a format writes below.
    pub(crate) fn root(&self, format: Format) -> &str {
        // There are always these two.
        self.roots.get(usize::from(format.has_slash())).map_or("", |root| root)
    }

    /// The prefixes of one service. They end in a slash, or `book` would find `book2` too.
    pub(crate) fn of_service(&self, service: &ServiceName) -> Vec<String> {
        self.roots.iter().map(|root| format!("{root}{service}/")).collect()
    }

    /// The key that an instance is written to.
    pub(crate) fn of_instance(&self, format: Format, service: &ServiceName, id: &InstanceId) -> String {
        format!("{}{service}/{}", self.root(format), escape(id.as_str()))
    }

    /// Every key that an id can be found under: below all prefixes, escaped by us or written as it is by others.
    pub(crate) fn all_of_instance(&self, service: &ServiceName, id: &InstanceId) -> Vec<String> {
        let escaped = escape(id.as_str());
        let mut keys = Vec::new();
        for prefix in self.of_service(service) {
            keys.push(format!("{prefix}{escaped}"));
            // Only if it stands for this id: "a%2Fb" as it is would be the key of "a/b".
            if escaped != id.as_str() && id_of(id.as_str().as_bytes()).is_ok_and(|same| same == *id) {
                keys.push(format!("{prefix}{id}"));
            }
        }
        keys
    }
}

/// What an instance's siblings have in common under whose key it is, if its id says that it has some.
pub(crate) fn shared_id(id: &InstanceId) -> Option<InstanceId> {
    id.as_str().rsplit_once('@').and_then(|(shared, _)| InstanceId::new(shared).ok())
}

/// The first segment behind a root, if it can be a service's name.
pub(crate) fn service_of(root: &str, key: &[u8]) -> Option<ServiceName> {
    let segment = segment_of(root, key)?;
    ServiceName::new(segment.strip_prefix(root)?.strip_suffix('/')?).ok()
}

/// A key up to the end of the first segment behind a root, slash included.
pub(crate) fn segment_of<'a>(root: &str, key: &'a [u8]) -> Option<&'a str> {
    let rest = key.strip_prefix(root.as_bytes())?;
    let end = rest.iter().position(|&b| b == b'/')?;
    std::str::from_utf8(key.get(..=root.len() + end)?).ok()
}

/// An id as one segment of a key: `/`, `%` and control characters as `%XX`, all else as it is.
fn escape(id: &str) -> String {
    let mut key = String::with_capacity(id.len());
    for c in id.chars() {
        if matches!(c, '/' | '%') || c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                key.push_str(&format!("%{byte:02X}"));
            }
        } else {
            key.push(c);
        }
    }
    key
}

/// The id in what follows a service's prefix.
pub(crate) fn id_of(rest: &[u8]) -> Result<InstanceId, String> {
    let text = percent_decode(rest).decode_utf8().map_err(|_| "the key is not UTF-8".to_owned())?;
    InstanceId::new(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> ServiceName {
        "book".parse().unwrap()
    }

    fn id(text: &str) -> InstanceId {
        InstanceId::new(text).unwrap()
    }

    #[test]
    fn ids_are_one_segment() {
        let keys = Keys::new("services/", &[]);
        let key = |text: &str| keys.of_instance(Format::Grpc, &book(), &id(text));
        assert_eq!(key("a/b"), "services/book/a%2Fb");
        assert_eq!(key("100%"), "services/book/100%25");
        assert_eq!(key("书 #1"), "services/book/书 #1");
        assert_eq!(id_of("100%".as_bytes()).unwrap().as_str(), "100%");
        assert_eq!(id_of(b"a/b").unwrap().as_str(), "a/b");
        assert!(id_of(b"").unwrap_err().contains("0 bytes"));
        assert!(id_of(b"\xff").unwrap_err().contains("UTF-8"));
        assert!(id_of(b"a%0A").unwrap_err().contains("control"));
        assert!(id_of(&[b'a'; 257]).unwrap_err().contains("257"));
        let all = keys.all_of_instance(&book(), &id("a/b"));
        assert_eq!(
            all,
            ["services/book/a%2Fb", "services/book/a/b", "/services/book/a%2Fb", "/services/book/a/b"]
        );
        // The key of another id is none of this one's.
        let all = keys.all_of_instance(&book(), &id("a%2Fb"));
        assert_eq!(all, ["services/book/a%252Fb", "/services/book/a%252Fb"]);
    }

    #[test]
    fn prefixes_end_in_a_slash() {
        let keys = Keys::new("/a/b/", &[]);
        assert_eq!(keys.of_service(&book()), ["a/b/book/", "/a/b/book/"]);
        assert_eq!(service_of("a/b/", b"a/b/book/1").unwrap(), book());
        assert_eq!(service_of("", b"book/1").unwrap(), book());
        assert_eq!(segment_of("a/", b"a/b c/d/e"), Some("a/b c/"));
        assert_eq!(segment_of("", b"/a"), Some("/"));
        assert_eq!(segment_of("a/", b"a/b"), None);
        for key in ["a/b/book", "a/bb/book/1", "a/b/~check/1", "a/b//1"] {
            assert_eq!(service_of("a/b/", key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn places_of_others_are_read_beside_our_own() {
        let keys = Keys::new("services", &[Format::Kratos, Format::Kitex, Format::GoMicro, Format::GoZero]);
        assert_eq!(
            keys.of_service(&book()),
            [
                "services/book/",
                "/services/book/",
                "/microservices/book/",
                "kitex/registry-etcd/book/",
                "/micro/registry/book/",
                "book/",
            ]
        );
        // Ours is not read twice.
        let keys = Keys::new("microservices", &[Format::Kratos]);
        assert_eq!(keys.roots(), ["microservices/", "/microservices/"]);
        assert_eq!(keys.root(Format::Kratos), "/microservices/");
        assert_eq!(Keys::new("", &[]).of_instance(Format::GoZero, &book(), &id("7")), "book/7");
    }
}
