//! What answers say that is new.

use std::time::Duration;

use super::*;
use crate::wire::{Entry, Port, Status};

fn entry(id: &str, dirty: i64, status: Status) -> Read {
    Ok(Entry {
        app: "BOOK".to_owned(),
        instance_id: id.to_owned(),
        host_name: "10.0.0.1".to_owned(),
        port: Some(Port { number: 80, enabled: true }),
        status,
        dirty,
        registered: dirty,
        ..Entry::default()
    })
}

/// What an answer comes to, and how many entries had to be understood for that.
fn take<'a>(
    listing: &mut Listing,
    entries: impl Iterator<Item = Told<'a>>,
    origin: Origin,
    at: Instant,
) -> (Said, usize) {
    let mut round = listing.round();
    for told in entries {
        listing.add(&mut round, told);
    }
    let understood = round.understood;
    (listing.finish(round, origin, at), understood)
}

struct Scene {
    listing: Listing,
    start: Instant,
}

impl Scene {
    fn set() -> Self {
        let listing = Listing::new(&"book".parse().unwrap(), Arc::default());
        Self { listing, start: Instant::now() }
    }

    /// What a server says at some second, with which we are connected since another.
    fn take(&mut self, entries: &[Read], (server, since): (usize, u64), at: u64) -> Said {
        let second = |second| self.start + Duration::from_secs(second);
        let origin = Origin { server, since: second(since) };
        take(&mut self.listing, entries.iter().map(Told::Once), origin, second(at)).0
    }
}

fn full(said: Said) -> Vec<(String, callsign_core::State)> {
    let Said::News(Update::Full(all)) = said else { panic!("{said:?}") };
    all.into_iter().map(|it| (it.id().to_string(), it.state())).collect()
}

fn up(id: &str, dirty: i64) -> Read {
    entry(id, dirty, Status::Up)
}

#[test]
fn a_server_that_knows_nothing_of_what_was_there_has_forgotten() {
    for (origin, at, forgotten) in [
        // Connected without a break: whatever it says is so.
        ((0, 0), 9, false),
        // A break since the last answer.
        ((0, 7), 9, true),
        ((1, 0), 9, true),
    ] {
        let mut scene = Scene::set();
        scene.take(&[up("a", 1), up("b", 1)], (0, 0), 5);
        let said = scene.take(&[up("a", 2)], origin, at);
        assert_eq!(said == Said::Forgotten, forgotten, "{origin:?}: {said:?}");
        // One that it knows as it was is enough; and that all are gone is told as it is.
        for kept in [&[up("a", 2), up("b", 1)][..], &[]] {
            let mut scene = Scene::set();
            scene.take(&[up("a", 1), up("b", 1)], (0, 0), 5);
            assert_ne!(scene.take(kept, origin, at), Said::Forgotten);
        }
    }
    // Who follows was told of a failure already.
    let mut scene = Scene::set();
    scene.take(&[up("a", 1)], (0, 0), 5);
    scene.listing.failed();
    assert_eq!(full(scene.take(&[up("a", 2)], (0, 7), 9)).len(), 1);
}

#[test]
fn who_says_that_it_is_away_is_gone_by_its_own_word() {
    use callsign_core::State::{Down, Up};
    let mut scene = Scene::set();
    assert_eq!(
        full(scene.take(&[up("a", 1), entry("b", 1, Status::Starting)], (0, 0), 1)),
        [("a".to_owned(), Up)]
    );
    let away = [entry("a", 2, Status::Down)];
    let id = InstanceId::new("a").unwrap();
    let gone = Said::News(Update::Delta { put: Vec::new(), gone: vec![(id.clone(), Removal::Announced)] });
    assert_eq!(scene.take(&away, (0, 0), 2), gone);
    assert_eq!(scene.take(&away, (0, 0), 3), Said::Nothing);
    assert_eq!(scene.take(&[], (0, 0), 3), Said::Nothing, "who was not listed is not missed");
    // In a list there is no such word: it is listed as down, once.
    scene.take(&[up("a", 3)], (0, 0), 4);
    scene.listing.relist();
    assert_eq!(full(scene.take(&away, (0, 0), 5)), [("a".to_owned(), Down)]);
    assert!(scene.listing.is_unfinished());
    assert_eq!(scene.take(&away, (0, 0), 6), gone);
    assert!(!scene.listing.is_unfinished());
    scene.take(&[up("a", 4)], (0, 0), 7);
    let gone = Said::News(Update::Delta { put: Vec::new(), gone: vec![(id, Removal::Expired)] });
    assert_eq!(scene.take(&[], (0, 0), 8), gone);
}

#[test]
fn what_is_kept_is_not_read_anew_and_what_changed_is() {
    let mut scene = Scene::set();
    let (origin, now) = (Origin { server: 0, since: scene.start }, scene.start);
    let mut kept = [Arc::new(up("a", 1)), Arc::new(up("b", 1)), Arc::new(entry("c", 1, Status::Down))];
    let mut take = |kept: &[Arc<Read>]| take(&mut scene.listing, kept.iter().map(Told::Kept), origin, now);
    let (first, understood) = take(&kept);
    assert_eq!((full(first).len(), understood), (2, 3));
    kept[1] = Arc::new(entry("b", 2, Status::Down));
    let gone = vec![(InstanceId::new("b").unwrap(), Removal::Announced)];
    assert_eq!(take(&kept), (Said::News(Update::Delta { put: Vec::new(), gone }), 1));
    assert_eq!(take(&kept), (Said::Nothing, 0));
    scene.listing.relist();
    let all = super::tests::take(&mut scene.listing, kept.iter().map(Told::Kept), origin, now).0;
    assert_eq!(full(all).len(), 1, "a list of all has what is kept, too");
}

#[test]
fn of_two_by_one_id_the_later_counts() {
    for entries in [[up("a", 1), entry("a", 2, Status::Down)], [entry("a", 2, Status::Down), up("a", 1)]] {
        assert!(full(Scene::set().take(&entries, (0, 0), 1)).is_empty());
    }
}
