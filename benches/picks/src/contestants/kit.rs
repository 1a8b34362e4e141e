//! Go kit's way, in Rust: a list behind a lock, and a counter that all share.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::{Contestant, Handle};

struct Kit {
    endpoints: RwLock<Vec<Arc<usize>>>,
    count: AtomicUsize,
}

impl Kit {
    fn new(instances: usize) -> Arc<Self> {
        let endpoints = (0..instances).map(Arc::new).collect();
        Arc::new(Self { endpoints: RwLock::new(endpoints), count: AtomicUsize::new(0) })
    }

    #[inline]
    fn pick<T>(&self, take: impl Fn(&Arc<usize>) -> T) -> Option<T> {
        let endpoints = self.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let index = count.checked_rem(endpoints.len())?;
        endpoints.get(index).map(take)
    }
}

pub(super) fn contestants(instances: usize) -> Vec<Contestant> {
    let (read, taken) = (Kit::new(instances), Kit::new(instances));
    let read = move |_| -> Handle {
        let kit = Arc::clone(&read);
        Box::new(move |picks| {
            for _ in 0..picks {
                black_box(kit.pick(|endpoint| **endpoint));
            }
        })
    };
    let take = move |_| -> Handle {
        let kit = Arc::clone(&taken);
        Box::new(move |picks| {
            for _ in 0..picks {
                black_box(kit.pick(Arc::clone));
            }
        })
    };
    vec![
        Contestant::new("Go kit's way, read in place", read),
        Contestant::new("Go kit's way, endpoint held", take),
    ]
}
