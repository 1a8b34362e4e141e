//! [`Notice`]: hears from the system what happens in a service's directory, and in the parents of one that does
//! not exist yet. What it hears is only ever a hint where to look.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::warn;

/// Whether the system tells of a lock's closing, and so of an owner's death.
pub(super) const HEARS_DEATH: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// What was heard and not looked at yet.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Entries that were written or removed.
    pub(super) touched: BTreeSet<String>,
    /// Entries whose lock was closed: their owner may be dead.
    pub(super) closed: BTreeSet<String>,
    /// Anything may have happened.
    pub(super) anything: bool,
}

impl Heard {
    pub(super) fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.closed.is_empty() && !self.anything
    }

    pub(super) fn add(&mut self, mut more: Self) {
        self.touched.append(&mut more.touched);
        self.closed.append(&mut more.closed);
        self.anything |= more.anything;
    }

    /// Takes at most `count` entries of each sort out.
    pub(super) fn take_some(&mut self, count: usize) -> Self {
        let some = |from: &mut BTreeSet<String>| {
            let rest = from.iter().nth(count).cloned().map(|next| from.split_off(&next));
            std::mem::replace(from, rest.unwrap_or_default())
        };
        Self { touched: some(&mut self.touched), closed: some(&mut self.closed), anything: false }
    }
}

/// Filled by the watcher's thread, emptied by the source.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    heard: Mutex<Heard>,
    news: Notify,
}

impl Inbox {
    pub(super) fn take(&self) -> Heard {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there is something to take, or there was. Cancel-safe.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    fn hear(&self, take_in: impl FnOnce(&mut Heard)) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        take_in(&mut heard);
        if !heard.is_empty() {
            self.news.notify_one();
        }
    }
}

/// A directory as something to tell from a later one of the same name.
type Identity = (PathBuf, Option<(u64, u64)>);

/// Makes a watcher; another one in tests.
pub(super) type Listen = fn(Box<dyn Fn(notify::Result<Event>) + Send>) -> notify::Result<RecommendedWatcher>;

/// By the system's own file notification.
pub(super) fn listen(hear: Box<dyn Fn(notify::Result<Event>) + Send>) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(hear)
}

/// The watch on a service's directory. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Notice {
    dir: PathBuf,
    inbox: Arc<Inbox>,
    listen: Listen,
    watch: Option<(RecommendedWatcher, Identity)>,
    warned: bool,
}

impl Notice {
    pub(super) fn new(dir: PathBuf, inbox: Arc<Inbox>, listen: Listen) -> Self {
        Self { dir, inbox, listen, watch: None, warned: false }
    }

    /// Whether changes in the directory, and deaths, are heard of without looking.
    pub(super) fn is_complete(&self) -> bool {
        HEARS_DEATH && self.watch.is_some()
    }

    /// Sees to it that the directory is watched, or what there is of the way to it. Blocks. To be called before
    /// each look at the directory, so that nothing falls between the two.
    pub(super) fn arm(&mut self) {
        // More rounds than directories on the way would mean that they come and go faster than we look.
        for _ in 0..16 {
            let Some(target) = self.target() else {
                self.watch = None;
                return;
            };
            if self.watch.as_ref().is_some_and(|(_, watched)| *watched == target) {
                return;
            }
            // A new watcher instead of another path for the old one: nothing is left of a directory that is gone.
            self.watch = None;
            match self.watcher(&target.0) {
                Ok(watcher) => {
                    self.warned = false;
                    self.watch = Some((watcher, target));
                }
                Err(error) if fs::metadata(&target.0).is_err() => drop(error),
                Err(error) => {
                    if !std::mem::replace(&mut self.warned, true) {
                        warn!(
                            dir = %self.dir.display(),
                            error = %error,
                            "no file notification: looking every half second instead; on Linux raise \
                             fs.inotify.max_user_instances and fs.inotify.max_user_watches"
                        );
                    }
                    return;
                }
            }
        }
    }

    /// The directory itself, or the nearest of its parents that exists.
    fn target(&self) -> Option<Identity> {
        self.dir.ancestors().find_map(|path| {
            let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
            Some((path.to_owned(), file_id(&metadata)))
        })
    }

    fn watcher(&self, target: &Path) -> notify::Result<RecommendedWatcher> {
        let inbox = Arc::clone(&self.inbox);
        // Of a parent only the next step on the way matters: it may be a busy place, such as /tmp.
        let next =
            self.dir.strip_prefix(target).ok().and_then(|rest| rest.iter().next().map(OsStr::to_owned));
        let own = target.file_name().map(OsStr::to_owned);
        let mut watcher = (self.listen)(Box::new(move |event| {
            inbox.hear(|heard| match event {
                Ok(event) => read(&event, next.as_deref(), own.as_deref(), heard),
                Err(_) => heard.anything = true,
            });
        }))?;
        watcher.watch(target, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}

/// What an event hints at. `next` is the name that is waited for in a parent, `None` in the directory itself.
fn read(event: &Event, next: Option<&OsStr>, own: Option<&OsStr>, heard: &mut Heard) {
    if event.need_rescan() {
        heard.anything = true;
    }
    let closed = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        // Our own looking opens files: whoever looks again for that never ends.
        EventKind::Access(_) => return,
        _ => false,
    };
    let moved = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
    for path in &event.paths {
        let Some(name) = path.file_name() else { continue };
        let stem = || path.file_stem().and_then(OsStr::to_str).map(str::to_owned);
        let extension = path.extension().and_then(OsStr::to_str);
        if let Some(next) = next {
            heard.anything |= name == next || moved && Some(name) == own;
        } else if extension == Some("json") && !closed {
            heard.touched.extend(stem());
        } else if extension == Some("lock") && (closed || moved) {
            heard.closed.extend(stem());
        } else if Some(name) == own && moved {
            heard.anything = true;
        }
    }
}

#[cfg(unix)]
fn file_id(metadata: &fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_id(_: &fs::Metadata) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, Flag, RemoveKind, RenameMode};

    fn heard(kind: EventKind, path: &str, next: Option<&str>) -> Heard {
        let mut heard = Heard::default();
        read(
            &Event::new(kind).add_path(path.into()),
            next.map(OsStr::new),
            Some(OsStr::new("book")),
            &mut heard,
        );
        heard
    }

    #[test]
    fn only_what_matters_is_heard() {
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let removed = EventKind::Remove(RemoveKind::File);
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(heard(renamed, "/r/book/a%3a1.json", None).touched.contains("a%3a1"));
        assert!(heard(removed, "/r/book/a.json", None).touched.contains("a"));
        assert!(heard(closed, "/r/book/a.lock", None).closed.contains("a"));
        assert!(heard(removed, "/r/book/a.lock", None).closed.contains("a"));
        assert!(heard(EventKind::Remove(RemoveKind::Folder), "/r/book", None).anything);
        for (kind, path) in [
            (opened, "/r/book/a.json"),
            (opened, "/r/book/a.lock"),
            (written, "/r/book/a.lock"),
            (written, "/r/book/.a.tmp"),
            (renamed, "/r/book/.a.tmp"),
            (closed, "/r/book/a.json"),
        ] {
            assert!(heard(kind, path, None).is_empty(), "{kind:?} {path}");
        }
    }

    #[test]
    fn of_a_parent_only_the_way_matters() {
        let made = EventKind::Create(CreateKind::Folder);
        assert!(heard(made, "/tmp/r", Some("r")).anything);
        assert!(heard(made, "/tmp/other.json", Some("r")).is_empty());
    }

    #[test]
    fn is_taken_out_in_parts() {
        let entries = |range: std::ops::Range<u32>| range.map(|n| n.to_string()).collect::<BTreeSet<_>>();
        let mut all = Heard { touched: entries(10..17), closed: entries(10..12), anything: false };
        let parts = [all.take_some(3), all.take_some(3), all.take_some(3)];
        assert!(all.is_empty());
        assert_eq!(parts.each_ref().map(|part| part.touched.len()), [3, 3, 1]);
        assert_eq!(parts.each_ref().map(|part| part.closed.len()), [2, 0, 0]);
        parts.into_iter().for_each(|part| all.add(part));
        assert_eq!((all.touched, all.closed), (entries(10..17), entries(10..12)));
    }

    #[test]
    fn an_overflow_means_anything() {
        let mut heard = Heard::default();
        read(&Event::new(EventKind::Other).set_flag(Flag::Rescan), None, None, &mut heard);
        assert!(heard.anything);
    }
}
