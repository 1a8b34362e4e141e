//! What the checker catches, and what it lets pass.

use super::*;

const GRACE: Duration = Duration::from_secs(2);
/// Longer than any line below, where it is not what is tested.
const LAG: Duration = Duration::from_secs(60);
const PROMISES: Promises = Promises { grace: GRACE, skew: Duration::ZERO, lag: LAG, whole: true };

/// A time line in tenths of a second.
struct Line(Instant);

impl Line {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn at(&self, tenths: u64) -> Instant {
        self.0 + Duration::from_millis(100 * tenths)
    }

    /// One write a second, in the order of revisions from 1: `a=1` or, a removal, `a`.
    fn writes(&self, writes: &[&str]) -> Vec<Write> {
        let write = |(n, text): (usize, &&str)| {
            let (id, content) =
                text.split_once('=').map_or((*text, None), |(id, content)| (id, Some(content)));
            let (id, content) = (id.to_owned(), content.map(str::to_owned));
            Write { at: self.at(10 * (n as u64 + 1)), revision: n as i64 + 1, id, content }
        };
        writes.iter().enumerate().map(write).collect()
    }

    /// What was seen when; `a=1!` is held. All are fresh.
    fn shown(&self, shown: &[(u64, &str)]) -> Vec<Shown> {
        let listing = |text: &str| {
            let (id, content) = text.split_once('=').unwrap();
            let held = content.ends_with('!');
            (id.to_owned(), Listing { content: content.trim_end_matches('!').to_owned(), held })
        };
        let snapshot = |(n, (tenths, text)): (usize, &(u64, &str))| Shown {
            at: self.at(*tenths),
            revision: n as u64,
            fresh: true,
            listed: text.split_whitespace().map(listing).collect(),
        };
        shown.iter().enumerate().map(snapshot).collect()
    }
}

fn judge(writes: &[&str], shown: &[(u64, &str)]) -> Result<(), Unexplained> {
    judge_by(PROMISES, writes, shown)
}

fn judge_by(promises: Promises, writes: &[&str], shown: &[(u64, &str)]) -> Result<(), Unexplained> {
    let line = Line::new();
    check(&line.writes(writes), &line.shown(shown), promises)
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn what_really_was_passes() {
    let writes = ["a=1", "b=1", "a=2", "b", "b=2"];
    let every = [(0, ""), (10, "a=1"), (20, "a=1 b=1"), (30, "a=2 b=1"), (40, "a=2 b=1!"), (50, "a=2 b=2")];
    assert_eq!(judge(&writes, &every), Ok(()));
    // States may be skipped.
    assert_eq!(judge(&writes, &[(0, ""), (30, "a=2 b=1"), (90, "a=2 b=2")]), Ok(()));
    // Held by the guard, then believed.
    assert_eq!(judge(&["a=1", "b=1", "b"], &[(20, "a=1 b=1"), (30, "a=1 b=1!"), (50, "a=1")]), Ok(()));
    // The same content again is a later write of it.
    assert_eq!(judge(&["a=1", "a=2", "a=1"], &[(10, "a=1"), (20, "a=2"), (30, "a=1")]), Ok(()));
    assert_eq!(judge(&[], &[(0, "")]), Ok(()));
}

#[test]
fn an_invented_instance() {
    let invented = Unexplained::Invented { at: 1, id: "b".to_owned() };
    assert_eq!(judge(&["a=1"], &[(10, "a=1"), (20, "a=1 b=1"), (30, "a=1")]), Err(invented));
}

#[test]
fn a_value_that_was_never_written() {
    let never = Unexplained::NeverWritten { at: 0, id: "a".to_owned(), content: "2".to_owned() };
    assert_eq!(judge(&["a=1", "b=2"], &[(20, "a=2 b=2"), (30, "a=1 b=2")]), Err(never));
}

#[test]
fn back_to_the_old() {
    let outdated = |at| Err(Unexplained::Outdated { at, id: "a".to_owned(), content: "1".to_owned() });
    let shown = [(10, "a=1"), (20, "a=2"), (21, "a=1"), (22, "a=2")];
    assert_eq!(judge(&["a=1", "a=2"], &shown), outdated(2));
    // What has gone does not return by itself, confirmed or held.
    for back in ["a=1 b=1", "a=1! b=1"] {
        let shown = [(20, "a=1 b=1"), (50, "b=1"), (51, back), (52, "b=1")];
        assert_eq!(judge(&["a=1", "b=1", "a"], &shown), outdated(2));
    }
}

#[test]
fn a_mixture_of_old_and_new() {
    let (writes, shown) = (["a=1", "b=1", "a=2", "b=2"], [(20, "a=1 b=1"), (40, "a=1 b=2"), (41, "a=2 b=2")]);
    assert_eq!(judge(&writes, &shown), Err(Unexplained::NoRevision { at: 1, from: 2 }));
    assert_eq!(judge_by(Promises { whole: false, ..PROMISES }, &writes, &shown), Ok(()));
    // A state that really was, of before.
    let (writes, shown) =
        (["a=1", "b=1", "b", "c=1"], [(40, "a=1 c=1 b=1!"), (41, "a=1 b=1 c=1"), (42, "a=1 c=1")]);
    assert_eq!(judge(&writes, &shown), Err(Unexplained::NoRevision { at: 1, from: 4 }));
}

#[test]
fn gone_without_being_removed() {
    let vanished = Unexplained::Vanished { at: 1, id: "b".to_owned() };
    assert_eq!(judge(&["a=1", "b=1"], &[(20, "a=1 b=1"), (21, "a=1"), (22, "a=1 b=1")]), Err(vanished));
}

#[test]
fn empty_too_soon() {
    let writes = ["a=1", "b=1", "b", "a", "c=1"];
    let shown = |tenths| [(20, "a=1 b=1"), (40, "a=1! b=1!"), (tenths, ""), (90, "c=1")];
    assert_eq!(judge(&writes, &shown(41)), Err(Unexplained::EmptyTooSoon { at: 2 }));
    assert_eq!(judge(&writes, &shown(60)), Ok(()));
    let unguarded = Promises { grace: Duration::ZERO, ..PROMISES };
    assert_eq!(judge_by(unguarded, &writes, &shown(41)), Ok(()));
    // That it was empty before what has been seen since is no excuse.
    let (writes, shown) = (["a=1", "a", "a=2", "a"], [(10, "a=1"), (30, "a=2"), (41, "")]);
    assert_eq!(judge(&writes, &shown), Err(Unexplained::EmptyTooSoon { at: 2 }));
}

#[test]
fn a_final_set_that_is_not_what_there_is() {
    let not_final = |missing: &[&str], surplus: &[&str], outdated: &[&str]| {
        Err(Unexplained::NotFinal { missing: set(missing), surplus: set(surplus), outdated: set(outdated) })
    };
    let writes = ["a=1", "b=1", "c=1", "a"];
    assert_eq!(judge(&writes, &[(30, "a=1 b=1 c=1"), (90, "b=1 c=1")]), Ok(()));
    assert_eq!(judge(&writes, &[(20, "a=1 b=1")]), not_final(&["c"], &["a"], &[]));
    assert_eq!(judge(&writes, &[(40, "a=1! b=1 c=1")]), not_final(&[], &["a"], &[]));
    assert_eq!(judge(&["a=1", "a=2"], &[(10, "a=1")]), not_final(&[], &[], &["a"]));
    assert_eq!(judge(&["a=1"], &[]), not_final(&["a"], &[], &[]));
}

#[test]
fn counting_back() {
    let line = Line::new();
    let (writes, mut shown) = (line.writes(&["a=1"]), line.shown(&[(10, "a=1"), (11, "a=1")]));
    shown[1].revision = 0;
    assert_eq!(check(&writes, &shown, PROMISES), Err(Unexplained::CountedBack { at: 0, before: 0 }));
}

/// A transaction takes effect at once.
#[test]
fn half_of_a_revision() {
    let line = Line::new();
    let mut writes = line.writes(&["a=1", "b=1"]);
    writes[1].revision = 1;
    let half = line.shown(&[(10, "a=1"), (20, "a=1 b=1")]);
    assert_eq!(check(&writes, &half, PROMISES), Err(Unexplained::NoRevision { at: 0, from: 0 }));
    assert_eq!(check(&writes, &half[1..], PROMISES), Ok(()));
}

/// What is said to be fresh must be, for as long as it is shown; what is said to be stale need not.
#[test]
fn fresh_and_long_outdated() {
    let line = Line::new();
    let promises = Promises { lag: Duration::from_secs(2), ..PROMISES };
    let writes = line.writes(&["a=1", "a=2"]);
    // Published anew, or left as it was.
    for (at, shown) in [(1, vec![(10, "a=1"), (39, "a=1"), (41, "a=2")]), (0, vec![(10, "a=1"), (41, "a=2")])]
    {
        let mut shown = line.shown(&shown);
        assert_eq!(check(&writes, &shown, promises), Err(Unexplained::Late { at, from: 2 }));
        assert_eq!(check(&writes, &shown, Promises { skew: Duration::from_secs(1), ..promises }), Ok(()));
        shown[at as usize].fresh = false;
        assert_eq!(check(&writes, &shown, promises), Ok(()));
    }
    // What has not changed since is not outdated, however old.
    assert_eq!(judge_by(promises, &["a=1"], &[(500, "a=1")]), Ok(()));
    assert_eq!(judge_by(promises, &["a=1", "a=2", "a=1"], &[(10, "a=1"), (500, "a=1")]), Ok(()));
}
