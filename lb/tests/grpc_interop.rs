//! gRPC's interop tests (`doc/interop-test-descriptions.md`) against gRPC-Go's server, over both transports.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy sees no test in what a macro makes one of"
)]

#[path = "support/interop.rs"]
mod interop;
#[macro_use]
mod support;

use std::time::Duration;

use callsign_lb::RoundRobin;
use callsign_lb::grpc::Channel;
use callsign_testkit::peers;
use callsign_testkit::process::Program;
use interop::{
    EchoStatus, Empty, InputRequest, InputResponse, OutputRequest, OutputResponse, Payload, SimpleRequest,
    SimpleResponse,
};
use prost::Message;
use support::grpc::{Over, ready};
use support::{Script, within};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// A server of gRPC-Go.
struct Server {
    program: Program,
    port: u16,
}

impl Server {
    async fn start(port: u16, streams: u32) -> Self {
        let mut program = peers::interop(([127, 0, 0, 1], port).into(), streams).unwrap();
        let at = program.said("serving ", Duration::from_secs(10)).await;
        let at: std::net::SocketAddr = at.parse().unwrap();
        Self { program, port: at.port() }
    }

    async fn scene(over: Over, streams: u32) -> (Self, Script, Channel) {
        let server = Self::start(0, streams).await;
        let (script, _registry, watch) = Script::open();
        let channel = over.channel(watch);
        script.lists([server.port]);
        ready(&channel, 1).await;
        (server, script, channel)
    }

    /// Ends it as a server does that was asked to: GOAWAY, and what it has is finished.
    async fn stop(mut self) -> u16 {
        self.program.end_stdin();
        while self.program.process.try_ended().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.port
    }
}

fn path(method: &str) -> http::uri::PathAndQuery {
    format!("/grpc.testing.TestService/{method}").parse().unwrap()
}

async fn client(channel: &Channel) -> Grpc<Channel> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    client
}

async fn unary<A, B>(channel: &Channel, method: &str, request: Request<A>) -> Result<Response<B>, Status>
where
    A: Message + Send + Sync + 'static,
    B: Message + Default + Send + Sync + 'static,
{
    client(channel).await.unary(request, path(method), ProstCodec::default()).await
}

/// A stream in both directions, which ends with the sender.
async fn full_duplex(
    channel: &Channel,
    metadata: MetadataMap,
) -> (mpsc::Sender<OutputRequest>, Response<Streaming<OutputResponse>>) {
    let (say, said) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(said));
    *request.metadata_mut() = metadata;
    // gRPC-Go says nothing before it has something to say.
    say.send(OutputRequest::new(&[31415], 27182)).await.unwrap();
    let codec = ProstCodec::default();
    let answer = client(channel).await.streaming(request, path("FullDuplexCall"), codec).await.unwrap();
    (say, answer)
}

fn size(message: Option<OutputResponse>) -> usize {
    message.unwrap().payload.unwrap().body.len()
}

async fn empty_and_large_unary(over: Over) {
    let (_server, _script, channel) = Server::scene(over, 0).await;
    unary::<_, Empty>(&channel, "EmptyCall", Request::new(Empty {})).await.unwrap();
    let request =
        SimpleRequest { response_size: 314_159, payload: Payload::zeros(271_828), response_status: None };
    let answer = unary::<_, SimpleResponse>(&channel, "UnaryCall", Request::new(request)).await.unwrap();
    assert!(answer.into_inner().payload == Payload::zeros(314_159));
    // The most that either side takes by default, and more.
    for (size, taken) in [(4_190_000, true), (4_200_000, false)] {
        let response_size = i32::try_from(size).unwrap();
        let request = SimpleRequest { response_size, payload: Payload::zeros(size), response_status: None };
        let answer = unary::<_, SimpleResponse>(&channel, "UnaryCall", Request::new(request)).await;
        match answer {
            Ok(answer) => assert!(taken && answer.into_inner().payload == Payload::zeros(size)),
            Err(status) => assert!(!taken && status.code() == Code::ResourceExhausted, "{status}"),
        }
    }
}

async fn compressed_unary(over: Over) {
    let (_server, _script, channel) = Server::scene(over, 0).await;
    let gzip = CompressionEncoding::Gzip;
    let mut client = client(&channel).await.send_compressed(gzip).accept_compressed(gzip);
    let request =
        SimpleRequest { response_size: 314_159, payload: Payload::zeros(271_828), response_status: None };
    let codec = ProstCodec::<_, SimpleResponse>::default();
    let answer = client.unary(Request::new(request), path("UnaryCall"), codec).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert!(answer.into_inner().payload == Payload::zeros(314_159));
}

async fn streaming(over: Over) {
    let (_server, _script, channel) = Server::scene(over, 0).await;
    // client_streaming
    let sizes = [27182, 8, 1828, 45904];
    let all = sizes.map(|size| InputRequest { payload: Payload::zeros(size) });
    let request = Request::new(tokio_stream::iter(all));
    let codec = ProstCodec::<_, InputResponse>::default();
    let answer = client(&channel).await.client_streaming(request, path("StreamingInputCall"), codec).await;
    assert_eq!(answer.unwrap().into_inner().aggregated_payload_size, 74922);
    // server_streaming
    let sizes = [31415, 9, 2653, 58979];
    let request = Request::new(OutputRequest::new(&sizes, 0));
    let codec = ProstCodec::default();
    let answer = client(&channel).await.server_streaming(request, path("StreamingOutputCall"), codec).await;
    let mut answers: Streaming<OutputResponse> = answer.unwrap().into_inner();
    for expected in [31415, 9, 2653, 58979] {
        assert_eq!(size(answers.message().await.unwrap()), expected);
    }
    assert!(answers.message().await.unwrap().is_none());
    // ping_pong
    let (say, answer) = full_duplex(&channel, MetadataMap::new()).await;
    let mut answers = answer.into_inner();
    assert_eq!(size(answers.message().await.unwrap()), 31415);
    for (asked, said) in [(9, 8), (2653, 1828), (58979, 45904)] {
        say.send(OutputRequest::new(&[asked], said)).await.unwrap();
        assert_eq!(size(answers.message().await.unwrap()), usize::try_from(asked).unwrap());
    }
    drop(say);
    assert!(answers.message().await.unwrap().is_none());
    // empty_stream
    let request = Request::new(tokio_stream::empty::<OutputRequest>());
    let codec = ProstCodec::<_, OutputResponse>::default();
    let answer = client(&channel).await.streaming(request, path("FullDuplexCall"), codec).await.unwrap();
    assert!(answer.into_inner().message().await.unwrap().is_none());
    assert_eq!(channel.endpoints().ready_set().slots()[0].stats().in_flight(), 0);
}

async fn custom_metadata(over: Over) {
    const INITIAL: &str = "x-grpc-test-echo-initial";
    const TRAILING: &str = "x-grpc-test-echo-trailing-bin";
    let (_server, _script, channel) = Server::scene(over, 0).await;
    let mut metadata = MetadataMap::new();
    metadata.insert(INITIAL, "test_initial_metadata_value".parse().unwrap());
    metadata.insert_bin(TRAILING, MetadataValue::from_bytes(&[0xab, 0xab, 0xab]));
    let mut request = Request::new(SimpleRequest { response_size: 1, ..SimpleRequest::default() });
    *request.metadata_mut() = metadata.clone();
    let answer = unary::<_, SimpleResponse>(&channel, "UnaryCall", request).await.unwrap();
    // tonic puts the trailers of a unary call among its metadata.
    assert_eq!(answer.metadata().get(INITIAL).unwrap(), "test_initial_metadata_value");
    assert_eq!(answer.metadata().get_bin(TRAILING).unwrap().to_bytes().unwrap()[..], [0xab; 3]);
    let (say, answer) = full_duplex(&channel, metadata).await;
    assert_eq!(answer.metadata().get(INITIAL).unwrap(), "test_initial_metadata_value");
    drop(say);
    let mut answers = answer.into_inner();
    while answers.message().await.unwrap().is_some() {}
    let trailers = answers.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get_bin(TRAILING).unwrap().to_bytes().unwrap()[..], [0xab; 3]);
}

async fn status_codes(over: Over) {
    let (_server, _script, channel) = Server::scene(over, 0).await;
    for message in ["test status message", "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"]
    {
        let status = EchoStatus { code: 2, message: message.into() };
        let request = SimpleRequest { response_status: Some(status.clone()), ..SimpleRequest::default() };
        let failed = unary::<_, SimpleResponse>(&channel, "UnaryCall", Request::new(request)).await;
        let failed = failed.unwrap_err();
        assert_eq!((failed.code(), failed.message()), (Code::Unknown, message));
        let request = OutputRequest { response_status: Some(status), ..OutputRequest::default() };
        let request = Request::new(tokio_stream::iter([request]));
        let codec = ProstCodec::<_, OutputResponse>::default();
        let failed = match client(&channel).await.streaming(request, path("FullDuplexCall"), codec).await {
            Ok(answer) => answer.into_inner().message().await.unwrap_err(),
            Err(failed) => failed,
        };
        assert_eq!((failed.code(), failed.message()), (Code::Unknown, message));
    }
    let request = || Request::new(Empty {});
    let failed = unary::<_, Empty>(&channel, "UnimplementedCall", request()).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unimplemented, "{failed}");
    let path = "/grpc.testing.UnimplementedService/UnimplementedCall".parse().unwrap();
    let codec = ProstCodec::<_, Empty>::default();
    let failed = client(&channel).await.unary(request(), path, codec).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unimplemented, "{failed}");
}

async fn cancelling_and_timing_out(over: Over) {
    let (_server, _script, channel) = Server::scene(over, 0).await;
    let in_flight = || channel.endpoints().ready_set().slots()[0].stats().in_flight();
    // cancel_after_begin
    let (say, said) = mpsc::channel::<InputRequest>(1);
    let request = Request::new(ReceiverStream::new(said));
    let codec = ProstCodec::<_, InputResponse>::default();
    let mut asking = client(&channel).await;
    let call = asking.client_streaming(request, path("StreamingInputCall"), codec);
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    within(Duration::from_secs(5), "the stream is let go of", say.closed()).await;
    assert_eq!(in_flight(), 0);
    // cancel_after_first_response
    let (say, answer) = full_duplex(&channel, MetadataMap::new()).await;
    let mut answers = answer.into_inner();
    assert_eq!(size(answers.message().await.unwrap()), 31415);
    drop(answers);
    within(Duration::from_secs(5), "the stream is let go of", say.closed()).await;
    assert_eq!(in_flight(), 0);
    // timeout_on_sleeping_server
    let (_say, said) = mpsc::channel::<OutputRequest>(1);
    let mut request = Request::new(ReceiverStream::new(said));
    request.set_timeout(Duration::from_millis(1));
    let codec = ProstCodec::<_, OutputResponse>::default();
    let failed = match client(&channel).await.streaming(request, path("FullDuplexCall"), codec).await {
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
        Err(failed) => failed,
    };
    assert_eq!(failed.code(), Code::DeadlineExceeded, "{failed}");
    assert_eq!(in_flight(), 0);
}

over_both! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    empty_and_large_unary,
    compressed_unary,
    streaming,
    custom_metadata,
    status_codes,
    cancelling_and_timing_out,
}

/// gRPC-Go refuses no stream and counts on clients to keep to its limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_streams_is_kept() {
    let (_server, _script, channel) = Server::scene(Over::Native, 4).await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        let (say, answer) = full_duplex(&channel, MetadataMap::new()).await;
        streams.push((say, answer.into_inner()));
    }
    for (_, answers) in &mut streams {
        assert_eq!(size(answers.message().await.unwrap()), 31415);
    }
    // Eight connections of four calls each: one more has to wait.
    let one_more = unary::<_, Empty>(&channel, "EmptyCall", Request::new(Empty {}));
    let mut one_more = std::pin::pin!(one_more);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut one_more).await.is_err());
    streams.pop();
    within(Duration::from_secs(5), "its turn", one_more).await.unwrap();
}

/// `backends_restart` and `round_robin`: servers that stop gracefully and come back, one after the other under load, fail no
/// call, and get their share again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_call() {
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(Server::start(0, 0).await);
    }
    let (script, _registry, watch) = Script::open();
    let channel = Channel::builder(watch)
        .policy(RoundRobin::default())
        .backoff(Duration::from_millis(20), Duration::from_millis(100))
        .build();
    script.lists(servers.iter().map(|server| server.port));
    ready(&channel, 4).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (channel, stop) = (channel.clone(), stop.clone());
        load.spawn(async move {
            let (mut calls, mut failed) = (0, Vec::new());
            while !stop.is_cancelled() {
                calls += 1;
                let answer = unary::<_, Empty>(&channel, "EmptyCall", Request::new(Empty {})).await;
                failed.extend(answer.err());
            }
            (calls, failed)
        });
    }
    for round in 0..8 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let server = servers.remove(0);
        let port = within(Duration::from_secs(10), "it ends", server.stop()).await;
        servers.push(Server::start(port, 0).await);
        ready(&channel, 4).await;
        assert!(!load.is_empty(), "in round {round}");
    }
    stop.cancel();
    for (calls, failed) in load.join_all().await {
        assert!(calls > 100 && failed.is_empty(), "{} of {calls} failed: {failed:?}", failed.len());
    }
}
