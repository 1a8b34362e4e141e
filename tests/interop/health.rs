//! gRPC's health service, which both sides can serve and call: [`Served`] and [`call`].

use std::net::SocketAddr;
use std::sync::Arc;

use callsign::grpc::Channel;
use callsign::{Instance, InstanceWatch};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// A server of ours, until it is dropped.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) addr: SocketAddr,
    _task: JoinSet<()>,
}

impl Served {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (reporter, health) = tonic_health::server::health_reporter();
        let mut task = JoinSet::new();
        task.spawn(async move {
            // What is reported lives as long as its reporter.
            let _reporter = reporter;
            Server::builder()
                .add_service(health)
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
                .unwrap();
        });
        Self { addr, _task: task }
    }
}

/// Makes calls through a channel over a watch, and returns who answered each.
pub(crate) async fn call(watch: InstanceWatch, calls: usize) -> Vec<String> {
    let channel = Channel::new(watch.clone());
    channel.endpoints().wait_for(|ready| ready.len() == watch.snapshot().len()).await;
    let mut client = HealthClient::new(channel);
    let mut answered = Vec::new();
    for _ in 0..calls {
        let answer = client.check(HealthCheckRequest::default()).await.unwrap();
        answered.push(answer.extensions().get::<Arc<Instance>>().unwrap().address().to_string());
    }
    answered
}
