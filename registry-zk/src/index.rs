//! [`Index`]: what the nodes of one service stand for, and which of them are to be read. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use callsign_core::{Instance, InstanceId, Removal, ServiceName, Update};
use tracing::warn;

use crate::paths::id_of;
use crate::wire::decode;

/// What is read of which service.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) service: ServiceName,
    /// Its node, and those of other frameworks.
    pub(crate) dirs: Vec<String>,
    /// Of an entry's several endpoints, those that speak this.
    pub(crate) protocol: Option<Arc<str>>,
}

/// A node of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    /// Which of the service's nodes it is below.
    pub(crate) dir: usize,
    pub(crate) name: String,
}

#[derive(Debug)]
pub(crate) struct Index {
    scope: Arc<Scope>,
    /// What each node stands for, or why it cannot be understood.
    nodes: HashMap<Node, Result<Vec<Instance>, String>>,
    /// How many nodes are known below each.
    known: Vec<usize>,
    /// How many nodes stand for an id, where there are several.
    shared: HashMap<InstanceId, usize>,
    unread: BTreeSet<Node>,
    changes: BTreeMap<InstanceId, Option<Instance>>,
    bad: usize,
    /// That which is not understood has changed.
    bad_changed: bool,
    /// One of several that stood for an id is gone, and what the others say is to be read.
    needs_list: bool,
}

impl Index {
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        Self {
            nodes: HashMap::new(),
            known: vec![0; scope.dirs.len()],
            shared: HashMap::new(),
            unread: BTreeSet::new(),
            changes: BTreeMap::new(),
            bad: 0,
            bad_changed: false,
            needs_list: false,
            scope,
        }
    }

    /// An empty one of the same, which does not tell of the same bad entries again.
    pub(crate) fn anew(&self) -> Listing<'_> {
        Listing { before: self, index: Self::new(Arc::clone(&self.scope)) }
    }

    pub(crate) fn service(&self) -> &ServiceName {
        &self.scope.service
    }

    pub(crate) fn dirs(&self) -> &[String] {
        &self.scope.dirs
    }

    pub(crate) fn path(&self, node: &Node) -> String {
        format!("{}/{}", self.scope.dirs.get(node.dir).map_or("", |dir| dir), node.name)
    }

    pub(crate) fn known(&self, dir: usize) -> usize {
        self.known.get(dir).copied().unwrap_or(0)
    }

    pub(crate) fn skipped(&self) -> usize {
        self.bad
    }

    /// The path of something that has changed.
    pub(crate) fn changed(&mut self, path: &str) {
        for (dir, base) in self.scope.dirs.iter().enumerate() {
            let name = path.strip_prefix(base.as_str()).and_then(|rest| rest.strip_prefix('/'));
            // What is below an instance is not ours to read.
            if let Some(name) = name.filter(|name| !name.is_empty() && !name.contains('/')) {
                self.unread.insert(Node { dir, name: name.to_owned() });
            }
        }
    }

    /// Whether everything that is known to have changed was read, and told.
    pub(crate) fn is_settled(&self) -> bool {
        self.unread.is_empty() && self.changes.is_empty() && !self.bad_changed
    }

    /// Some of what is to be read; `None` if there is nothing.
    pub(crate) fn unread(&self, at_most: usize) -> Option<Vec<Node>> {
        let some: Vec<_> = self.unread.iter().take(at_most).cloned().collect();
        (!some.is_empty()).then_some(some)
    }

    pub(crate) fn needs_list(&self) -> bool {
        self.needs_list
    }

    /// What was read of a node; `None`: it is not there.
    pub(crate) fn set(&mut self, node: Node, data: Option<&[u8]>) {
        let understood = data.map(|data| self.understand(&node, data));
        if let Some(Err(why)) = &understood {
            let told = matches!(self.nodes.get(&node), Some(Err(before)) if before == why);
            if !told {
                self.tell(&node, why);
            }
        }
        self.replace(node, understood);
    }

    fn understand(&self, node: &Node, data: &[u8]) -> Result<Vec<Instance>, String> {
        let id = id_of(&node.name)?;
        decode(&self.scope.service, &id, data, self.scope.protocol.as_deref())
    }

    fn tell(&self, node: &Node, why: &str) {
        warn!(
            service = %self.scope.service, node = self.path(node), why,
            "a node in ZooKeeper cannot be understood and is left out"
        );
    }

    fn replace(&mut self, node: Node, understood: Option<Result<Vec<Instance>, String>>) {
        self.unread.remove(&node);
        let dir = node.dir;
        let before = match &understood {
            Some(content) => self.nodes.insert(node, content.clone()),
            None => self.nodes.remove(&node),
        };
        if let Some(known) = self.known.get_mut(dir) {
            *known = *known + usize::from(understood.is_some()) - usize::from(before.is_some());
        }
        let bad = matches!(understood, Some(Err(_)));
        let was_bad = matches!(before, Some(Err(_)));
        self.bad = self.bad + usize::from(bad) - usize::from(was_bad);
        self.bad_changed |= bad != was_bad;
        let before = before.and_then(Result::ok).unwrap_or_default();
        let now = understood.and_then(Result::ok).unwrap_or_default();
        for instance in &now {
            if before.contains(instance) {
                continue;
            }
            if !before.iter().any(|before| before.id() == instance.id()) {
                *self.shared.entry(instance.id().clone()).or_insert(0) += 1;
            }
            self.changes.insert(instance.id().clone(), Some(instance.clone()));
        }
        for gone in before.iter().filter(|gone| now.iter().all(|instance| instance.id() != gone.id())) {
            let left = self.shared.get_mut(gone.id()).map_or(0, |count| {
                *count = count.saturating_sub(1);
                *count
            });
            if left == 0 {
                self.shared.remove(gone.id());
                self.changes.insert(gone.id().clone(), None);
            } else {
                self.needs_list = true;
            }
        }
    }

    /// What has changed since this was asked last.
    pub(crate) fn news(&mut self) -> Option<Update> {
        let changes = std::mem::take(&mut self.changes);
        let bad_changed = std::mem::take(&mut self.bad_changed);
        if changes.is_empty() && !bad_changed {
            return None;
        }
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (id, instance) in changes {
            match instance {
                Some(instance) => put.push(instance),
                // Whether its owner removed it or its session ended looks alike. Who leaves in order has said so before.
                None => gone.push((id, Removal::Expired)),
            }
        }
        Some(Update::Delta { put, gone })
    }

    fn all(&self) -> Vec<Instance> {
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        // So that of several that stand for an id it is always the same that counts.
        nodes.sort_by_key(|(node, _)| *node);
        nodes.into_iter().filter_map(|(_, content)| content.as_ref().ok()).flatten().cloned().collect()
    }
}

/// An index that is being made by a list.
pub(crate) struct Listing<'a> {
    before: &'a Index,
    index: Index,
}

impl Listing<'_> {
    pub(crate) fn set(&mut self, node: Node, data: Option<&[u8]>) {
        let Some(data) = data else { return };
        let understood = self.index.understand(&node, data);
        if let Err(why) = &understood
            && !matches!(self.before.nodes.get(&node), Some(Err(before)) if before == why)
        {
            self.index.tell(&node, why);
        }
        self.index.replace(node, Some(understood));
    }

    /// The whole, and the index to go on from.
    pub(crate) fn finish(mut self) -> (Vec<Instance>, Index) {
        // All of it is told by the list.
        self.index.changes.clear();
        self.index.bad_changed = false;
        (self.index.all(), self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(dirs: &[&str]) -> Index {
        let dirs = dirs.iter().map(ToString::to_string).collect();
        Index::new(Arc::new(Scope { service: ServiceName::new("book").unwrap(), dirs, protocol: None }))
    }

    fn node(dir: usize, name: &str) -> Node {
        Node { dir, name: name.to_owned() }
    }

    #[test]
    fn only_children_of_the_services_nodes_are_read() {
        let mut index = index(&["/services/book", "/book"]);
        for path in
            ["/services/book", "/services/book2/x", "/services/book/a", "/services/book/a/b", "/book/c"]
        {
            index.changed(path);
        }
        assert_eq!(index.unread(9).unwrap(), [node(0, "a"), node(1, "c")]);
    }

    #[test]
    fn news_is_told_once() {
        let mut index = index(&["/services/book"]);
        index.changed("/services/book/a");
        assert!(!index.is_settled());
        index.set(node(0, "a"), Some(b"10.0.0.1:80"));
        let Some(Update::Delta { put, gone }) = index.news() else { panic!("no news") };
        assert_eq!((put.len(), gone.len(), index.known(0)), (1, 0, 1));
        index.set(node(0, "a"), Some(b"10.0.0.1:80"));
        assert_eq!(index.news(), None);
        index.set(node(0, "b"), Some(b"{"));
        assert_eq!(index.news(), Some(Update::Delta { put: Vec::new(), gone: Vec::new() }));
        assert_eq!((index.skipped(), index.known(0)), (1, 2));
        index.set(node(0, "b"), None);
        index.set(node(0, "a"), None);
        let Some(Update::Delta { put, gone }) = index.news() else { panic!("no news") };
        assert_eq!((put.len(), gone.len(), index.known(0), index.skipped()), (0, 1, 0, 0));
    }

    #[test]
    fn what_two_nodes_stand_for_is_listed_anew_when_one_goes() {
        let mut index = index(&["/services/book", "/book"]);
        index.set(node(0, "a"), Some(b"10.0.0.1:80"));
        index.set(node(1, "a"), Some(b"10.0.0.1:81"));
        assert!(!index.needs_list());
        index.set(node(1, "a"), None);
        assert!(index.needs_list());
    }
}
