//! What holds for every policy whatever happens, tried with many random stories of fixed seeds: instances come, go, close
//! and fail, calls end or are given up, and handles sleep meanwhile.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use callsign_lb::{
    Balancer, Call, Ejection, Endpointer, Key, NamedPolicy, Outcome, Picked, RoundRobin, SlowStart, Stats,
};
use support::{Counts, Probe, Script};

struct Story {
    script: Script,
    endpoints: Endpointer<Probe>,
    handles: Vec<Balancer<Probe, SlowStart<NamedPolicy>>>,
    held: Vec<Picked<Probe>>,
    /// Whose endpoint was closed since the builder last ran.
    closed: BTreeSet<u16>,
    /// Those that fail each call, and whether there ever were any: then some may be in the set, and let a single call
    /// through, which another call was.
    failing: BTreeSet<u16>,
    troubled: bool,
    seen: Vec<Arc<Stats>>,
    rng: fastrand::Rng,
}

impl Story {
    /// Time passes, so that the builder has run.
    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(20..400))).await;
        self.closed.clear();
        for slot in self.endpoints.ready_set().slots().iter() {
            if !self.seen.iter().any(|stats| Arc::ptr_eq(stats, slot.stats())) {
                self.seen.push(Arc::clone(slot.stats()));
            }
        }
    }

    /// Picks by any handle, some of which have slept since the beginning, for a call that may have tried others.
    fn pick(&mut self) {
        let set = self.endpoints.ready_set();
        let ready: BTreeSet<u16> = set.slots().iter().map(|slot| slot.instance().address().port()).collect();
        let open: BTreeSet<u16> = ready.difference(&self.closed).copied().collect();
        let handle = self.rng.usize(..self.handles.len());
        let mut call = Call::new();
        if self.rng.bool() {
            call = call.with_key(Key::new(self.rng.u8(..).to_le_bytes()));
        }
        let mut tried = BTreeSet::new();
        loop {
            match self.handles[handle].pick_for(&call) {
                Ok(picked) => {
                    // Neither removed, nor left out, nor closed; whoever is probed is in the set.
                    assert!(open.contains(&picked.port), "{} is not among {open:?}", picked.port);
                    call.avoid(&picked);
                    let news = tried.insert(picked.port);
                    assert!(news || tried.len() >= open.len().min(8) || self.troubled, "{tried:?} {open:?}");
                    self.held.push(picked);
                }
                Err(error) => {
                    assert!(open.is_empty() || self.troubled, "{error} although there is {open:?}");
                    break;
                }
            }
            if self.rng.bool() {
                break;
            }
        }
    }

    /// A call ends, or is given up.
    fn end(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let picked = self.held.swap_remove(self.rng.usize(..self.held.len()));
        match self.rng.u8(..10) {
            0 => {}
            1 => picked.answered(),
            2 => picked.allow(Duration::ZERO),
            _ if self.failing.contains(&picked.port) => picked.report(Outcome::Failure),
            _ => picked.report(Outcome::Success),
        }
    }

    fn step(&mut self) {
        match self.rng.u8(..100) {
            0..2 => {
                let wanted = self.rng.u16(..12);
                let ports: Vec<u16> = (1..=wanted).filter(|_| self.rng.u8(..4) > 0).collect();
                self.script.lists(ports);
            }
            2 => {
                self.failing = (1..=12).filter(|_| self.rng.u8(..6) == 0).collect();
                self.troubled |= !self.failing.is_empty();
            }
            3..5 => {
                // One that was just picked is in use now.
                let latest = self.held.len();
                self.pick();
                for picked in &self.held[latest..] {
                    picked.report_closed();
                    self.closed.insert(picked.port);
                }
            }
            5 => {
                let at = self.rng.usize(..self.handles.len());
                let clone = self.handles[at].clone();
                if self.handles.len() < 6 { self.handles.push(clone) } else { self.handles[at] = clone }
            }
            6..60 => self.pick(),
            _ => self.end(),
        }
    }
}

/// Nobody picks what was removed, left out or closed while another is ready, and none is picked twice for a call while there
/// is one that it has not tried; and when all calls have ended none is in flight, and no endpoint is left over.
#[tokio::test(start_paused = true)]
async fn no_policy_picks_what_is_not_ready_and_no_call_is_lost() {
    for (at, name) in NamedPolicy::NAMES.iter().enumerate() {
        for seed in 0..8 {
            let policy: NamedPolicy = name.parse().unwrap();
            let (script, _registry, watch) = Script::open();
            let counts = Arc::new(Counts::default());
            let rule = if seed % 4 == 3 { Ejection::outlier_detection().into() } else { Ejection::default() };
            let endpoints = Endpointer::builder(watch, counts.factory()).ejection(rule).seed(seed).build();
            let policy = SlowStart::new(policy, Duration::from_millis(if seed % 2 == 0 { 0 } else { 500 }));
            let balancer = Balancer::with_seed(endpoints.clone(), policy, seed);
            let mut story = Story {
                script,
                endpoints,
                handles: vec![balancer],
                held: Vec::new(),
                closed: BTreeSet::new(),
                failing: BTreeSet::new(),
                troubled: false,
                seen: Vec::new(),
                rng: fastrand::Rng::with_seed(seed * 100 + at as u64),
            };
            story.script.lists(1..=5);
            story.pause().await;
            for _ in 0..60 {
                for _ in 0..story.rng.usize(..40) {
                    story.step();
                }
                story.pause().await;
            }
            story.held.clear();
            story.script.lists([1]);
            // Those that closed are dialled again within 5 s.
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(counts.alive(), 1, "{name} {seed}");
            assert!(story.seen.len() > 5, "{name} {seed}: too little has happened");
            for stats in &story.seen {
                let (failed, seen) = stats.outcomes();
                assert!(stats.in_flight() == 0 && failed <= seen && seen <= 30, "{name} {seed}: {stats:?}");
            }
        }
    }
}

/// One change among ten thousand dials the one that is new, lets go of the one that left, and leaves all others alone.
#[tokio::test(start_paused = true)]
async fn one_change_among_ten_thousand_dials_one() {
    let (script, _registry, watch) = Script::open();
    let counts = Arc::new(Counts::default());
    let endpoints = Endpointer::builder(watch, counts.factory()).concurrent_dials(512).build();
    script.lists(1..=10_000);
    let set = endpoints.wait_for(|set| set.len() == 10_000).await;
    let mut balancer = Balancer::new(endpoints.clone(), RoundRobin::default());
    assert_eq!((counts.made(), counts.alive()), (10_000, 10_000));
    script.lists(1..=10_001);
    let grown = endpoints.wait_for(|set| set.len() == 10_001).await;
    assert_eq!((counts.made(), counts.alive()), (10_001, 10_001));
    let kept = |slot: &callsign_lb::Slot<Probe>| {
        set.slots().iter().any(|old| Arc::ptr_eq(old.stats(), slot.stats()))
    };
    assert_eq!(grown.slots().iter().step_by(97).filter(|slot| !kept(slot)).count(), 0);
    script.lists(2..=10_001);
    endpoints.wait_for(|set| set.len() == 10_000).await;
    assert_eq!((counts.made(), counts.alive()), (10_001, 10_000));
    assert!((0..10_001).all(|_| balancer.pick().unwrap().port != 1));
}
