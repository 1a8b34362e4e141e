//! [`list`]: everything below the prefixes of a service, at one revision, page by page.

use callsign_core::{Error, ErrorKind, Result};
use etcd_client::{GetOptions, GetResponse, KeyValue};

use crate::error;
use crate::index::{Index, Listing};
use crate::members::{Link, MAX_PAGE, Members, Repeat};

/// Entries a page. Adapted where entries are so large that a page would not be taken in.
const PAGE: i64 = 1000;
/// How often a list starts over because compaction took its revision away.
const LISTS: usize = 3;

enum Page {
    Read(Box<GetResponse>),
    /// The revision is compacted, or of a cluster that is no more.
    Lost,
    TooLarge,
}

/// Lists a service, and says at which revision. `index` is what was known of it before.
pub(crate) async fn list(members: &Members, index: &Index) -> Result<(i64, Listing)> {
    for _ in 0..LISTS {
        if let Some(listed) = list_once(members, index).await? {
            return Ok(listed);
        }
    }
    let what = format!("etcd's compaction overtook the list of {} {LISTS} times", index.service());
    Err(Error::new(ErrorKind::Unavailable, what))
}

/// All prefixes at one revision; `None` if that revision was lost midway.
async fn list_once(members: &Members, index: &Index) -> Result<Option<(i64, Listing)>> {
    let what = format!("list of {}", index.service());
    let (mut listing, mut revision, mut limit) = (Listing::new(index), 0, PAGE);
    for (side, prefix) in index.prefixes().iter().enumerate() {
        let (mut from, end) = (prefix.clone().into_bytes(), end_of(prefix));
        let permitted = loop {
            let options = || GetOptions::new().with_range(end.clone()).with_revision(revision);
            let page = match read(members, &what, &from, options().with_limit(limit)).await {
                // At its beginning, that is: half a list is none.
                Err(error)
                    if error.kind() == ErrorKind::PermissionDenied
                        && index.may_be_denied(side)
                        && from == prefix.as_bytes() =>
                {
                    break false;
                }
                page => page?,
            };
            let page = match page {
                Page::Read(page) => page,
                Page::Lost => return Ok(None),
                Page::TooLarge if limit > 1 => {
                    limit = (limit / 4).max(1);
                    continue;
                }
                Page::TooLarge => {
                    let one = options().with_limit(1).with_keys_only();
                    let Page::Read(one) = read(members, &what, &from, one).await? else { return Ok(None) };
                    let Some(key) = one.kvs().first().map(KeyValue::key) else { break true };
                    listing.skip(key, &format!("the value has more than {MAX_PAGE} bytes"));
                    from = after(key);
                    continue;
                }
            };
            let at = page.header().map_or(0, etcd_client::ResponseHeader::revision);
            if revision == 0 {
                revision = at;
            } else if at < revision {
                return Ok(None);
            }
            for kv in page.kvs() {
                listing.add(kv.key(), kv.value(), kv.mod_revision());
            }
            match page.kvs().last() {
                Some(last) if page.more() => from = after(last.key()),
                _ => break true,
            }
        };
        listing.read(side, permitted);
    }
    Ok(Some((revision, listing)))
}

async fn read(members: &Members, what: &str, from: &[u8], options: GetOptions) -> Result<Page> {
    let read = |mut link: Link| {
        let options = options.clone();
        async move {
            match link.kv.get(from, Some(options)).await {
                Ok(page) => Ok(Page::Read(Box::new(page))),
                Err(error) if error::lost_revision(&error) => Ok(Page::Lost),
                Err(error) if error::too_large(&error) => Ok(Page::TooLarge),
                Err(error) => Err(error),
            }
        }
    };
    Ok(members.ask(what, Repeat::Safe, read).await?.1)
}

/// The first key behind all that begin with `prefix`, which ends in a slash or is empty: etcd's way to say that there
/// is none is a zero.
pub(crate) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(0),
    }
    end
}

/// The first key that there can be below `prefix`; etcd knows no empty one.
pub(crate) fn start_of(prefix: &str) -> Vec<u8> {
    if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() }
}

/// The first key behind `key`.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
