//! [`Backend`]: a gRPC server that registers itself, as a process of its own, to be killed and paused.

use std::process::Command;
use std::time::Duration;

use callsign::{Instance, InstanceId, ServiceName};
use callsign_testkit::process::{Process, Program};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

const URL: &str = "CALLSIGN_FAULTS_URL";
const SERVICE: &str = "CALLSIGN_FAULTS_SERVICE";

/// One backend process, which has registered once.
#[derive(Debug)]
pub(crate) struct Backend {
    program: Program,
    pub(crate) id: InstanceId,
}

impl Backend {
    /// Starts one on a free port, and waits until it is registered.
    pub(crate) async fn start(url: &str, service: &ServiceName) -> Self {
        // This binary itself, as the one test that is no test.
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "backend::serve", "--ignored", "--nocapture"])
            .envs([(URL, url), (SERVICE, service.as_str())]);
        let mut program = Program::spawn(&mut command).unwrap();
        let id = program.said("registered as ", Duration::from_secs(30)).await;
        Self { program, id: InstanceId::new(&id).unwrap() }
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.program.process
    }
}

/// Not a test: what a backend process runs. It leaves in two phases when it is asked to end.
#[tokio::test]
#[ignore = "the body of a backend process, which other tests start"]
async fn serve() {
    let Ok(url) = std::env::var(URL) else { return };
    let mut asked = signal(SignalKind::terminate()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let registry = callsign::open(&url).unwrap();
    let service: ServiceName = std::env::var(SERVICE).unwrap().parse().unwrap();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = Server::builder().add_service(health).serve_with_incoming_shutdown(
        TcpIncoming::from(listener),
        async move {
            // An error: nobody will ask any more.
            let _ = stopped.await;
        },
    );
    let registering = async {
        let registration = registry.register(Instance::new(service, addr).unwrap()).await.unwrap();
        println!("registered as {}", registration.id());
        asked.recv().await;
        registration.deregister().await.unwrap();
        stop.send(()).unwrap();
    };
    let (served, ()) = tokio::join!(serving, registering);
    served.unwrap();
}
