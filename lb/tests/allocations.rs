//! A pick allocates nothing: counted, on the thread that picks.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper of tests")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use callsign_lb::{
    Balancer, Call, Endpointer, Key, NamedPolicy, Outcome, P3cEwma, Policy, RoundRobin, SlowStart,
};
use support::{Counts, Script};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// The one way to count allocations; it only forwards.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations there are in some thousand picks with their ends.
async fn picks(policy: impl Policy) -> u64 {
    let (script, _registry, watch) = Script::open();
    let endpoints = Endpointer::new(watch, Arc::new(Counts::default()).factory());
    script.lists(1..=10);
    endpoints.wait_for(|set| set.len() == 10).await;
    let mut balancer = Balancer::new(endpoints, policy);
    // The first pick takes the present set into the handle, and the process its time.
    let mut call = Call::new();
    call.avoid(&balancer.pick().unwrap());
    let key = Call::new().with_key(Key::new("k"));
    let before = COUNT.get();
    for _ in 0..2_000 {
        balancer.pick().unwrap().report(Outcome::Success);
        drop(balancer.pick_for(&call).unwrap());
        let failed = balancer.pick_for(&key).unwrap();
        failed.allow(Duration::from_secs(1));
        failed.answered();
        failed.report(Outcome::Failure);
        balancer.choose(&key).unwrap();
    }
    COUNT.get() - before
}

#[tokio::test]
async fn a_pick_allocates_nothing() {
    assert!(COUNT.get() > 0, "it counts");
    for name in NamedPolicy::NAMES {
        assert_eq!(picks(name.parse::<NamedPolicy>().unwrap()).await, 0, "{name}");
    }
    assert_eq!(picks(SlowStart::new(P3cEwma::default(), Duration::from_secs(30))).await, 0);
    assert_eq!(picks(RoundRobin::default()).await, 0);
}
