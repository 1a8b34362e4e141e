//! [`Paths`]: which node an instance is written to and which nodes are read. Pure.

use callsign_core::{Instance, InstanceId, ServiceName};

use crate::wire::Format;

/// Where services are: below one node, and below the places of other frameworks that are to be read too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    /// Ours first; each begins with a slash, but that of the root, which is empty.
    roots: Vec<String>,
}

impl Paths {
    /// Nodes below `base`; `read` are the frameworks whose own places are read too.
    pub(crate) fn new(base: &str, read: &[Format]) -> Self {
        let mut roots = vec![root(base)];
        for format in read {
            let root = root(format.default_base());
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        Self { roots }
    }

    /// The node below which we write: `/` for the root itself.
    pub(crate) fn base(&self) -> &str {
        self.roots.first().map_or("/", |root| if root.is_empty() { "/" } else { root })
    }

    /// All nodes below which services are read.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &str> {
        self.roots.iter().map(|root| if root.is_empty() { "/" } else { root })
    }

    /// Those below which services can be told apart: where a framework has no node of its own, all of ZooKeeper is below
    /// it. Ours is meant to be looked at even so.
    pub(crate) fn roots_of_services(&self) -> impl Iterator<Item = &str> {
        self.roots().enumerate().filter(|(at, root)| *at == 0 || *root != "/").map(|(_, root)| root)
    }

    /// The nodes of one service.
    pub(crate) fn of_service(&self, service: &ServiceName) -> Vec<String> {
        self.roots.iter().map(|root| format!("{root}/{service}")).collect()
    }

    /// The node that an instance is written to.
    pub(crate) fn of_instance(&self, format: Format, instance: &Instance) -> String {
        let root = self.roots.first().map_or("", |root| root);
        let name = match format {
            // Kitex takes the name for the address.
            Format::Kitex => escape(&instance.address().to_string()),
            Format::Curator | Format::GoKit | Format::Kratos => escape(instance.id().as_str()),
        };
        format!("{root}/{}/{name}", instance.service())
    }
}

fn root(base: &str) -> String {
    match base.trim_matches('/') {
        "" => String::new(),
        base => format!("/{base}"),
    }
}

/// What is wrong with a path, if anything: by ZooKeeper's own rules.
pub(crate) fn fault(path: &str) -> Option<String> {
    let names = path.trim_matches('/').split('/');
    for (at, name) in names.enumerate().filter(|_| !path.trim_matches('/').is_empty()) {
        if name.is_empty() {
            return Some("has an empty name between its slashes".to_owned());
        }
        if name == "." || name == ".." {
            return Some(format!("has the name {name:?}, which ZooKeeper has no nodes of"));
        }
        if at == 0 && name == "zookeeper" {
            return Some("is ZooKeeper's own".to_owned());
        }
        if let Some(bad) = name.chars().find(|c| is_refused(*c)) {
            return Some(format!("has the character {bad:?}, which ZooKeeper refuses"));
        }
    }
    None
}

/// Characters that ZooKeeper has no nodes with: what Java writes in two halves is among them.
fn is_refused(c: char) -> bool {
    c.is_control() || matches!(c, '\u{E000}'..='\u{F8FF}' | '\u{FFF0}'..)
}

/// An id as the name of a node: what ZooKeeper refuses, `/` and `%` as `%XX`, all else as it is.
fn escape(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    let dots = id == "." || id == "..";
    for c in id.chars() {
        if matches!(c, '/' | '%') || is_refused(c) || dots {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        } else {
            name.push(c);
        }
    }
    name
}

/// The id that a node's name stands for.
pub(crate) fn id_of(name: &str) -> Result<InstanceId, String> {
    let text = percent_encoding::percent_decode_str(name).decode_utf8();
    let text = text.map_err(|_| "the node's name is not UTF-8 once decoded".to_owned())?;
    InstanceId::new(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_below_the_base_and_the_places_of_others() {
        let book = ServiceName::new("book").unwrap();
        let paths = Paths::new("/a/b/", &[Format::Kratos, Format::Kitex, Format::Curator]);
        assert_eq!(paths.of_service(&book), ["/a/b/book", "/microservices/book", "/book", "/services/book"]);
        assert_eq!(paths.base(), "/a/b");
        assert_eq!(paths.roots().count(), 4);
        assert!(paths.roots_of_services().eq(["/a/b", "/microservices", "/services"]));
        assert!(Paths::new("/", &[]).roots_of_services().eq(["/"]));
        let instance = Instance::new("book", "10.0.0.1:80").unwrap().with_id("x/y").unwrap();
        assert_eq!(paths.of_instance(Format::Curator, &instance), "/a/b/book/x%2Fy");
        assert_eq!(Paths::new("/", &[]).of_instance(Format::Kitex, &instance), "/book/10.0.0.1:80");
        assert_eq!(Paths::new("", &[]).base(), "/");
    }

    #[test]
    fn every_id_has_a_name_that_stands_for_it() {
        for id in ["a", "10.0.0.1:80", "[::1]:80", "a/b", "%2F", ".", "..", "ü🦀\u{F000}\u{FFF1}", "a b"] {
            let name = escape(id);
            assert!(!name.contains('/') && fault(&format!("/services/book/{name}")).is_none(), "{name}");
            assert_eq!(id_of(&name).unwrap().as_str(), id);
        }
    }

    #[test]
    fn what_zookeeper_refuses_is_named() {
        for (path, says) in [
            ("/a//b", "empty name"),
            ("/a/../b", "\"..\""),
            ("/zookeeper/x", "own"),
            ("/a\u{7}", "character"),
        ] {
            assert!(fault(path).is_some_and(|fault| fault.contains(says)), "{path}");
        }
        for path in ["", "/", "/services", "/a/zookeeper/"] {
            assert_eq!(fault(path), None, "{path}");
        }
    }
}
