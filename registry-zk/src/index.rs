//! [`Index`]: what the nodes of one service stand for, and which of them are to be read. Pure.
//!
//! Several nodes may stand for one id, as while a service moves from one framework to another. The last of them counts, by
//! their places and names, so that it is the same one whoever looks and whatever has changed.

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

/// What came of reading a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Read {
    Data(Vec<u8>),
    Gone,
    /// Its ACL allows us no look, as this says.
    Refused(String),
}

/// A node of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    /// Which of the service's nodes it is below.
    pub(crate) dir: usize,
    pub(crate) name: String,
}

/// What is known of a node.
#[derive(Debug, Clone)]
struct Known {
    /// What it stands for, or why it cannot be understood.
    says: Result<Vec<Instance>, String>,
    /// Why we may not look any more: what it stands for is from before.
    refused: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Index {
    scope: Arc<Scope>,
    nodes: HashMap<Node, Known>,
    /// How many nodes are known below each.
    known: Vec<usize>,
    /// Which nodes stand for an id, in their order; one, as a rule.
    of_id: HashMap<InstanceId, Vec<Node>>,
    unread: BTreeSet<Node>,
    changes: BTreeMap<InstanceId, Option<Instance>>,
    bad: usize,
    /// That which is not understood has changed.
    bad_changed: bool,
    refused: usize,
}

impl Index {
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        Self {
            nodes: HashMap::new(),
            known: vec![0; scope.dirs.len()],
            of_id: HashMap::new(),
            unread: BTreeSet::new(),
            changes: BTreeMap::new(),
            bad: 0,
            bad_changed: false,
            refused: 0,
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

    /// Why we may look at none of the nodes, if that is so and there are some.
    pub(crate) fn refusal(&self) -> Option<&str> {
        if self.refused == 0 || self.refused < self.nodes.len() {
            return None;
        }
        let first = self.nodes.iter().min_by_key(|(node, _)| *node);
        first.and_then(|(_, known)| known.refused.as_deref())
    }

    /// What was read of a node.
    pub(crate) fn set(&mut self, node: &Node, read: Read) {
        let before = self.nodes.get(node);
        let known = self.known_by(node, read, before);
        if let Some(known) = &known {
            self.tell(node, known, before);
        }
        self.replace(node, known);
    }

    /// What follows from a read, given what was known before.
    fn known_by(&self, node: &Node, read: Read, before: Option<&Known>) -> Option<Known> {
        match read {
            Read::Data(data) => Some(Known { says: self.understand(node, &data), refused: None }),
            Read::Refused(why) => {
                let says = before.map_or_else(|| Err(why.clone()), |before| before.says.clone());
                Some(Known { says, refused: Some(why) })
            }
            Read::Gone => None,
        }
    }

    fn understand(&self, node: &Node, data: &[u8]) -> Result<Vec<Instance>, String> {
        let id = id_of(&node.name)?;
        decode(&self.scope.service, &id, data, self.scope.protocol.as_deref())
    }

    /// Tells of a node that is of no use, unless that was told before.
    fn tell(&self, node: &Node, known: &Known, before: Option<&Known>) {
        let service = &self.scope.service;
        match &known.says {
            Err(why) if before.and_then(|before| before.says.as_ref().err()) != Some(why) => {
                let node = self.path(node);
                warn!(%service, node, why, "a node in ZooKeeper cannot be understood and is left out");
            }
            Ok(_) if before.is_some_and(|before| before.refused.is_none()) => {
                if let Some(why) = &known.refused {
                    warn!(%service, why, "a node in ZooKeeper may not be read any more, and counts as it was");
                }
            }
            _ => {}
        }
    }

    fn replace(&mut self, node: &Node, known: Option<Known>) {
        self.unread.remove(node);
        let before = match &known {
            Some(known) => self.nodes.insert(node.clone(), known.clone()),
            None => self.nodes.remove(node),
        };
        let count =
            |known: &Option<Known>, is: fn(&Known) -> bool| usize::from(known.as_ref().is_some_and(is));
        let counted = |sum: usize, is: fn(&Known) -> bool| sum + count(&known, is) - count(&before, is);
        if let Some(below) = self.known.get_mut(node.dir) {
            *below = counted(*below, |_| true);
        }
        let bad = counted(self.bad, |known| known.says.is_err());
        self.bad_changed |= bad != self.bad;
        self.bad = bad;
        self.refused = counted(self.refused, |known| known.refused.is_some());
        let said = before.and_then(|before| before.says.ok()).unwrap_or_default();
        let says = known.and_then(|known| known.says.ok()).unwrap_or_default();
        let (said, says) = (by_id(&said), by_id(&says));
        for (id, instance) in &says {
            if said.get(id) == Some(instance) {
                continue;
            }
            let nodes = self.of_id.entry((*id).clone()).or_default();
            if let Err(at) = nodes.binary_search(node) {
                nodes.insert(at, node.clone());
            }
            self.note(id);
        }
        for id in said.keys().filter(|id| !says.contains_key(*id)) {
            if let Some(nodes) = self.of_id.get_mut(*id) {
                nodes.retain(|other| other != node);
                if nodes.is_empty() {
                    self.of_id.remove(*id);
                }
            }
            self.note(id);
        }
    }

    /// Has it told what an id is now.
    fn note(&mut self, id: &InstanceId) {
        let last = self.of_id.get(id).and_then(|nodes| nodes.last()).and_then(|node| self.nodes.get(node));
        let says = last.and_then(|known| known.says.as_ref().ok());
        let instance = says.and_then(|says| says.iter().rfind(|instance| instance.id() == id));
        self.changes.insert(id.clone(), instance.cloned());
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
}

/// The instances of a node. It may name an id twice: then the last counts.
fn by_id(instances: &[Instance]) -> BTreeMap<&InstanceId, &Instance> {
    instances.iter().map(|instance| (instance.id(), instance)).collect()
}

/// An index that is being made by a list.
pub(crate) struct Listing<'a> {
    before: &'a Index,
    index: Index,
}

impl Listing<'_> {
    pub(crate) fn set(&mut self, node: &Node, read: Read) {
        let known = self.index.known_by(node, read, self.before.nodes.get(node));
        self.index.replace(node, known);
    }

    /// The whole, and the index to go on from.
    pub(crate) fn finish(mut self) -> (Vec<Instance>, Index) {
        // Where none may be read that is told as a whole.
        if self.index.refusal().is_none() {
            for (node, known) in &self.index.nodes {
                self.index.tell(node, known, self.before.nodes.get(node));
            }
        }
        // All of it is told by the list.
        self.index.bad_changed = false;
        (std::mem::take(&mut self.index.changes).into_values().flatten().collect(), self.index)
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

    fn says(text: &str) -> Read {
        Read::Data(text.into())
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
        index.set(&node(0, "a"), says("10.0.0.1:80"));
        let Some(Update::Delta { put, gone }) = index.news() else { panic!("no news") };
        assert_eq!((put.len(), gone.len(), index.known(0)), (1, 0, 1));
        index.set(&node(0, "a"), says("10.0.0.1:80"));
        assert_eq!(index.news(), None);
        index.set(&node(0, "b"), says("{"));
        assert_eq!(index.news(), Some(Update::Delta { put: Vec::new(), gone: Vec::new() }));
        assert_eq!((index.skipped(), index.known(0)), (1, 2));
        index.set(&node(0, "b"), Read::Gone);
        index.set(&node(0, "a"), Read::Gone);
        let Some(Update::Delta { put, gone }) = index.news() else { panic!("no news") };
        assert_eq!((put.len(), gone.len(), index.known(0), index.skipped()), (0, 1, 0, 0));
    }

    /// What is followed and what is listed agree, in whichever order nodes that stand for one id are read.
    #[test]
    fn of_several_nodes_that_stand_for_an_id_the_last_counts() {
        let dirs = &["/services/book", "/book"];
        let orders = [[0, 1], [1, 0]];
        for order in orders {
            let mut followed = index(dirs);
            let read = |dir: usize| says(["10.0.0.1:80", "10.0.0.1:81"][dir]);
            for dir in order {
                followed.set(&node(dir, "a"), read(dir));
            }
            let Some(Update::Delta { put, .. }) = followed.news() else { panic!("no news") };
            assert_eq!((put.len(), put[0].address().port()), (1, 81), "{order:?}");
            let before = index(dirs);
            let mut listing = before.anew();
            for dir in order {
                listing.set(&node(dir, "a"), read(dir));
            }
            assert_eq!(listing.finish().0, put, "{order:?}");

            // A change of the one that does not count is none, and when the other goes it counts, as it is by then.
            followed.set(&node(0, "a"), says("10.0.0.1:82"));
            assert_eq!(followed.news(), Some(Update::Delta { put, gone: Vec::new() }));
            followed.set(&node(1, "a"), Read::Gone);
            let Some(Update::Delta { put, gone }) = followed.news() else { panic!("no news") };
            assert_eq!((put[0].address().port(), gone.len()), (82, 0));
            followed.set(&node(0, "a"), Read::Gone);
            let Some(Update::Delta { put, gone }) = followed.news() else { panic!("no news") };
            assert_eq!((put.len(), gone.len()), (0, 1));
        }
    }

    #[test]
    fn a_node_that_may_not_be_read_any_more_counts_as_it_was() {
        let refused = || Read::Refused("no look".to_owned());
        let mut index = index(&["/services/book"]);
        index.set(&node(0, "a"), says("10.0.0.1:80"));
        index.set(&node(0, "b"), says("10.0.0.1:81"));
        index.set(&node(0, "c"), refused());
        let Some(Update::Delta { put, .. }) = index.news() else { panic!("no news") };
        assert_eq!((put.len(), index.skipped(), index.known(0)), (2, 1, 3));
        index.set(&node(0, "a"), refused());
        assert_eq!((index.news(), index.skipped(), index.refusal()), (None, 1, None));
        // So it is for a list.
        let mut listing = index.anew();
        for name in ["a", "b", "c"] {
            listing.set(&node(0, name), refused());
        }
        let (listed, mut index) = listing.finish();
        assert_eq!((listed, index.skipped(), index.refusal()), (put, 1, Some("no look")));
        index.set(&node(0, "a"), Read::Gone);
        index.set(&node(0, "c"), says("10.0.0.1:82"));
        let Some(Update::Delta { put, gone }) = index.news() else { panic!("no news") };
        assert_eq!((put.len(), gone.len(), index.skipped(), index.refusal()), (1, 1, 0, None));
    }
}
