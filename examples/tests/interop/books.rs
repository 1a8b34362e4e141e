//! Our side: a book server and a client of the library's, and the programs as they are.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use book::proto::BookInfoParams;
use book::proto::book_service_client::BookServiceClient;
use book::proto::book_service_server::BookServiceServer;
use book::service::Books;
use callsign::grpc::Channel;
use callsign::{Instance, InstanceWatch, RoundRobin};
use callsign_testkit::process::Program;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub(crate) const SOON: Duration = Duration::from_secs(10);

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
        let mut task = JoinSet::new();
        task.spawn(async move {
            let server = Server::builder().add_service(BookServiceServer::new(Books));
            server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        Self { addr, _task: task }
    }
}

/// Makes calls through a channel over a watch, and returns who answered.
pub(crate) async fn call(watch: InstanceWatch, calls: usize) -> BTreeSet<String> {
    // So that so few calls reach all.
    let channel = Channel::builder(watch.clone()).policy(RoundRobin::default()).build();
    channel.endpoints().wait_for(|ready| ready.len() == watch.snapshot().len()).await;
    let mut client = BookServiceClient::new(channel);
    let mut answered = BTreeSet::new();
    for book_id in 1..=calls {
        let params = BookInfoParams { book_id: i32::try_from(book_id).unwrap() };
        let answer = client.get_book_info(params).await.unwrap();
        assert_eq!((answer.get_ref().book_id, &*answer.get_ref().book_name), (params.book_id, "21天精通php"));
        answered.insert(answer.extensions().get::<Arc<Instance>>().unwrap().address().to_string());
    }
    answered
}

/// The server's program, registered, and its address.
pub(crate) async fn server(url: &str) -> (Program, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_book-server"));
    command.args(["--listen", "127.0.0.1:0", "--registry", url, "--lang", "en"]);
    let mut server = Program::spawn(&mut command).unwrap();
    let address = server.said("listening on: ", SOON).await;
    server.said("registered ", SOON).await;
    (server, address)
}

/// Runs the client's program, and returns who answered it.
pub(crate) async fn client(url: &str, calls: usize) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_book-client"));
    command.args(["--registry", url, "--calls", &calls.to_string(), "--lang", "en"]);
    let mut client = Program::spawn(&mut command).unwrap();
    let mut answered = BTreeSet::new();
    for _ in 0..calls {
        answered.insert(client.said("request to: ", SOON).await);
    }
    assert!(client.process.ended(SOON).await.unwrap().success());
    answered
}
