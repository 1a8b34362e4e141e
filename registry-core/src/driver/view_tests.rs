use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(30);

fn instance(n: usize) -> Instance {
    Instance::new("s", format!("10.0.0.1:{}", n + 1)).unwrap().with_id(&format!("i{n:05}")).unwrap()
}

fn id(n: usize) -> InstanceId {
    instance(n).id().clone()
}

fn full(of: impl IntoIterator<Item = usize>) -> Update {
    Update::Full(of.into_iter().map(instance).collect())
}

fn gone(of: impl IntoIterator<Item = usize>, how: Removal) -> Update {
    Update::Delta { put: Vec::new(), gone: of.into_iter().map(|n| (id(n), how)).collect() }
}

fn shown(view: &View) -> (Vec<usize>, Vec<usize>) {
    let number = |listed: &Listed| listed.id().as_str()[1..].parse::<usize>().unwrap();
    let (held, confirmed): (Vec<_>, Vec<_>) = view.instances().values().partition(|listed| listed.is_held());
    (confirmed.into_iter().map(number).collect(), held.into_iter().map(number).collect())
}

#[test]
fn a_wipe_is_held_and_those_that_return_are_confirmed() {
    let (mut view, t) = (View::new(GRACE), Instant::now());
    assert!(view.apply(full(0..4), t));
    assert!(view.apply(full([]), t));
    assert_eq!(shown(&view), (vec![], vec![0, 1, 2, 3]));
    assert!(view.apply(full(0..3), t + Duration::from_secs(2)));
    assert_eq!(shown(&view), (vec![0, 1, 2], vec![3]));
    assert_eq!(view.due(), Some(t + GRACE));
    assert!(view.expire(t + GRACE - Duration::from_millis(1)).is_empty());
    assert_eq!(view.expire(t + GRACE), [id(3)]);
    assert_eq!(shown(&view), (vec![0, 1, 2], vec![]));
    assert_eq!(view.due(), None);
}

#[test]
fn single_expiries_in_a_row_count_together() {
    let (mut view, t) = (View::new(GRACE), Instant::now());
    view.apply(full(0..4), t);
    for n in 0..4u64 {
        view.apply(gone([n as usize], Removal::Expired), t + Duration::from_secs(n));
    }
    // Two of four are not more than half; the third is.
    assert_eq!(shown(&view), (vec![], vec![2, 3]));
}

/// What an agent of Consul does that was away: all it has is there again, then some is not, then all is.
#[test]
fn who_came_back_from_a_mass_loss_is_not_believed_gone_at_once() {
    let (mut view, t) = (View::new(GRACE), Instant::now());
    view.apply(full(0..4), t);
    view.apply(full([]), t);
    let back = t + GRACE - Duration::from_secs(1);
    view.apply(full(0..4), back);
    assert_eq!(view.held(), 0);
    view.apply(gone([0, 1], Removal::Expired), back + GRACE / 2);
    assert_eq!(shown(&view), (vec![2, 3], vec![0, 1]));
    view.apply(full(0..4), back + GRACE / 2 + Duration::from_secs(1));
    // Such a loss is no mass loss itself, and so this ends.
    view.apply(gone([0], Removal::Expired), back + GRACE);
    assert_eq!(shown(&view), (vec![1, 2, 3], vec![]));
}

#[test]
fn losses_far_apart_do_not_count_together() {
    let (mut view, t) = (View::new(GRACE), Instant::now());
    view.apply(full(0..4), t);
    for n in 0..3u32 {
        view.apply(gone([n as usize], Removal::Expired), t + GRACE * n);
    }
    assert_eq!(shown(&view), (vec![3], vec![]));
}

#[test]
fn announced_removals_pass() {
    let (mut view, t) = (View::new(GRACE), Instant::now());
    view.apply(full(0..4), t);
    view.apply(gone(0..3, Removal::Announced), t);
    assert_eq!(shown(&view), (vec![3], vec![]));
    let draining = instance(3).with_state(State::Draining);
    view.apply(Update::Delta { put: vec![draining], gone: vec![] }, t);
    view.apply(full([]), t);
    assert_eq!(shown(&view), (vec![], vec![]));
}

#[test]
fn zero_grace_is_no_guard() {
    let (mut view, t) = (View::new(Duration::ZERO), Instant::now());
    view.apply(full(0..4), t);
    view.apply(full([]), t);
    assert_eq!(shown(&view), (vec![], vec![]));
}

#[test]
fn an_outage_stops_the_clock_of_grace() {
    let (mut view, t) = (View::new(GRACE), Instant::now());
    view.apply(full(0..4), t);
    view.apply(full([]), t);
    view.unreadable();
    assert_eq!(view.due(), None);
    assert!(view.expire(t + GRACE * 9).is_empty());
    view.apply(full([]), t + GRACE * 10);
    assert_eq!(view.due(), Some(t + GRACE * 11));
    assert_eq!(view.held(), 4);
}

#[test]
fn nothing_that_vanished_in_an_outage_is_believed_gone_at_once() {
    let (mut view, t) = (View::new(GRACE), Instant::now());
    view.unreadable();
    view.apply(full(0..10), t);
    view.apply(gone([9], Removal::Expired), t);
    view.unreadable();
    // The first to look after a wipe: six of the nine are back.
    view.apply(full(0..6), t + GRACE);
    assert_eq!(shown(&view), (vec![0, 1, 2, 3, 4, 5], vec![6, 7, 8]));
    view.apply(gone([0], Removal::Expired), t + GRACE + GRACE / 2);
    assert_eq!(shown(&view).1, [0, 6, 7, 8]);
    assert_eq!(view.expire(t + GRACE * 2).len(), 3);
    view.apply(gone([1], Removal::Expired), t + GRACE * 2);
    assert_eq!(shown(&view), (vec![2, 3, 4, 5], vec![0]));
}

#[test]
fn equal_content_is_no_change() {
    let (mut view, t) = (View::new(GRACE), Instant::now());
    assert!(view.apply(full(0..3), t));
    assert!(!view.apply(full([2, 0, 1]), t));
    assert!(!view.apply(Update::Delta { put: vec![instance(1)], gone: vec![(id(7), Removal::Expired)] }, t));
    assert!(view.apply(Update::Delta { put: vec![instance(1).with_weight(2)], gone: vec![] }, t));
    // A held one that returns as it was is a change: it is confirmed again.
    view.apply(full([]), t);
    assert!(view.apply(full([1]), t));
}

#[derive(Debug, Clone)]
enum Step {
    Full(Vec<usize>),
    Put(usize),
    Gone(usize, bool),
    Fail,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::collection::vec(0..8usize, 0..8).prop_map(Step::Full),
        (0..8usize).prop_map(Step::Put),
        (0..8usize, any::<bool>()).prop_map(|(n, announced)| Step::Gone(n, announced)),
        Just(Step::Fail),
        (0..40u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(23), cases: 2000, ..ProptestConfig::default() })]

    /// Against a model that follows the registry without a guard: what is confirmed is exactly the model; what
    /// is held was registered once; nothing that the registry lists is missing; all is exact once grace passed.
    #[test]
    fn the_guard_only_delays_removals(steps in proptest::collection::vec(step(), 1..40)) {
        let mut view = View::new(GRACE);
        let mut model = std::collections::BTreeSet::new();
        let mut ever = std::collections::BTreeSet::new();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Full(set) => { model = set.iter().copied().collect(); view.apply(full(set), now); }
                Step::Put(n) => { model.insert(n); view.apply(full(model.iter().copied()), now); }
                Step::Gone(n, announced) => {
                    model.remove(&n);
                    let how = if announced { Removal::Announced } else { Removal::Expired };
                    view.apply(gone([n], how), now);
                }
                Step::Fail => view.unreadable(),
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            view.expire(now);
            ever.extend(model.iter().copied());
            let (confirmed, held) = shown(&view);
            prop_assert_eq!(&confirmed, &model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(view.held(), held.len());
            prop_assert!(held.iter().all(|n| ever.contains(n)));
            prop_assert_eq!(view.losses.values().filter(|loss| loss.held).count(), held.len());
        }
        view.apply(full(model.iter().copied()), now);
        view.expire(now + GRACE);
        prop_assert_eq!(view.held(), 0);
    }
}
