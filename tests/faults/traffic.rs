//! [`Traffic`]: 200 calls a second through a balanced channel, without retry, and what became of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use callsign::InstanceWatch;
use callsign::grpc::Channel;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const EVERY: Duration = Duration::from_millis(5);
/// The most that a call may take; one that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Outcome {
    calls: usize,
    failures: Vec<Failure>,
}

/// A call that failed.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    /// How, for whoever reads what failed.
    _why: String,
}

/// Calls that go on until they are [`finished`](Self::finish).
#[derive(Debug)]
pub(crate) struct Traffic {
    outcome: Arc<Mutex<Outcome>>,
    stop: tokio::sync::watch::Sender<bool>,
    task: JoinSet<()>,
}

impl Traffic {
    /// Starts as soon as a first call has succeeded.
    pub(crate) async fn start(watch: InstanceWatch) -> Self {
        let mut client = HealthClient::new(Channel::builder(watch).timeout(DEADLINE).build());
        timeout(DEADLINE, client.check(HealthCheckRequest::default())).await.expect("no first call").unwrap();
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(run(client, Arc::clone(&outcome), stopped));
        Self { outcome, stop, task }
    }

    /// How many calls have ended so far, and those that failed.
    pub(crate) fn so_far(&self) -> (usize, Vec<Failure>) {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        (outcome.calls, outcome.failures.clone())
    }

    /// Stops, and returns how many calls there were and the failed ones.
    pub(crate) async fn finish(mut self) -> (usize, Vec<Failure>) {
        self.stop.send_replace(true);
        timeout(DEADLINE * 2, self.task.join_next()).await.expect("calls hang");
        self.so_far()
    }

    /// Stops after another second, and checks that no call has failed.
    pub(crate) async fn finish_without_failure(self) {
        sleep(Duration::from_secs(1)).await;
        let (calls, failures) = self.finish().await;
        assert!(calls > 50, "only {calls} calls");
        assert!(failures.is_empty(), "{} of {calls} calls failed: {:?}", failures.len(), failures.first());
    }
}

async fn run(
    client: HealthClient<Channel>,
    outcome: Arc<Mutex<Outcome>>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let mut calls = JoinSet::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            // An error: nobody asks for the outcome any more.
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = calls.join_next() => {}
            _ = ticks.tick() => {
                let (mut client, outcome) = (client.clone(), Arc::clone(&outcome));
                calls.spawn(async move {
                    let begun = Instant::now();
                    let answer = client.check(HealthCheckRequest::default()).await;
                    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                    outcome.calls += 1;
                    if let Err(status) = answer {
                        let failure = Failure { begun, ended: Instant::now(), _why: format!("{status:?}") };
                        outcome.failures.push(failure);
                    }
                });
            }
        }
    }
    while calls.join_next().await.is_some() {}
}
