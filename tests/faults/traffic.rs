//! [`Traffic`]: 200 calls a second through a balanced channel, without retry, and what became of them.

use std::sync::Arc;
use std::time::Duration;

use callsign::grpc::Channel;
use callsign::{Instance, InstanceId, InstanceWatch};
use callsign_testkit::load::{Load, most_frequent};
use tokio::time::{Instant, sleep, timeout};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const EVERY: Duration = Duration::from_millis(5);
/// The most that a call may take; one that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(5);

/// A call that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    /// How, for whoever reads what failed.
    _why: String,
}

/// Calls that go on until they are [`finished`](Self::finish).
#[derive(Debug)]
pub(crate) struct Traffic {
    client: HealthClient<Channel>,
    load: Load<Option<Failure>>,
}

impl Traffic {
    /// Starts as soon as a first call has succeeded.
    pub(crate) async fn start(watch: InstanceWatch) -> Self {
        let mut client = HealthClient::new(Channel::builder(watch).timeout(DEADLINE).build());
        timeout(DEADLINE, client.check(HealthCheckRequest::default())).await.expect("no first call").unwrap();
        let calls = client.clone();
        Self { client, load: Load::start(EVERY, move |_| call(calls.clone())) }
    }

    /// Who is called most at this moment.
    pub(crate) async fn most_called(&mut self) -> InstanceId {
        let mut answered = Vec::new();
        for _ in 0..20 {
            let answer = self.client.check(HealthCheckRequest::default()).await.unwrap();
            answered.push(answer.extensions().get::<Arc<Instance>>().unwrap().id().clone());
        }
        most_frequent(answered).unwrap()
    }

    /// Stops, and returns how many calls there were and the failed ones.
    pub(crate) async fn finish(self) -> (usize, Vec<Failure>) {
        let ended = timeout(DEADLINE * 2, self.load.finish()).await.expect("calls hang");
        (ended.len(), ended.into_iter().flatten().collect())
    }

    /// Stops after another second, and checks that no call has failed.
    pub(crate) async fn finish_without_failure(self) {
        sleep(Duration::from_secs(1)).await;
        let (calls, failures) = self.finish().await;
        assert!(calls > 50, "only {calls} calls");
        assert!(failures.is_empty(), "{} of {calls} calls failed: {:?}", failures.len(), failures.first());
    }
}

async fn call(mut client: HealthClient<Channel>) -> Option<Failure> {
    let begun = Instant::now();
    let status = client.check(HealthCheckRequest::default()).await.err()?;
    Some(Failure { begun, ended: Instant::now(), _why: format!("{status:?}") })
}
