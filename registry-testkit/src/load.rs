//! [`Load`]: calls at a steady pace, whatever becomes of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Calls that go on until they are [`finished`](Self::finish), and how each of them ended. Dropped, they are given up.
#[derive(Debug)]
pub struct Load<T> {
    stop: watch::Sender<bool>,
    task: JoinSet<Vec<T>>,
}

impl<T: Send + 'static> Load<T> {
    /// Begins a call every so often, however many are under way. `call` is given their numbers, from 1.
    pub fn start<F>(every: Duration, call: impl Fn(usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (stop, mut stopped) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (mut calls, mut ended, mut number) = (JoinSet::new(), Vec::new(), 0);
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    biased;
                    // An error: nobody asks for the outcome any more.
                    _ = stopped.wait_for(|stop| *stop) => break,
                    Some(call) = calls.join_next() => ended.push(call.unwrap()),
                    _ = ticks.tick() => {
                        number += 1;
                        calls.spawn(call(number));
                    }
                }
            }
            ended.extend(calls.join_all().await);
            ended
        });
        Self { stop, task }
    }

    /// Begins no more, waits for those under way, and returns how all of them ended.
    ///
    /// # Panics
    /// If a call has.
    pub async fn finish(mut self) -> Vec<T> {
        self.stop.send_replace(true);
        self.task.join_next().await.expect("it has not been waited for").unwrap()
    }
}

/// What there is most of: of the servers that answered, the one that calls go to.
pub fn most_frequent<T: Eq + Hash>(all: impl IntoIterator<Item = T>) -> Option<T> {
    let mut counts = HashMap::<_, usize>::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(most, _)| most)
}
