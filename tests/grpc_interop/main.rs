//! gRPC's interoperability tests through `grpc::Channel`, against gRPC-Go's own server of them: a foreign HTTP/2, foreign
//! trailers, foreign flow control. Cases by their names in grpc/doc/interop-test-descriptions.md.

// Helpers of tests report by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod messages;

use std::sync::Arc;
use std::time::Duration;

use callsign::grpc::Channel;
use callsign::{Instance, Registry, open};
use callsign_testkit::peers::serve_interop;
use callsign_testkit::process::Program;
use prost::Message;
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::tokio_stream::{self, Stream};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use messages::{
    EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse, StreamingInputCallRequest,
    StreamingInputCallResponse, StreamingOutputCallRequest, StreamingOutputCallResponse,
};

const SOON: Duration = Duration::from_secs(10);

/// What a generated client of the service is.
#[derive(Clone)]
struct TestService(Grpc<Channel>);

fn path(method: &str) -> PathAndQuery {
    format!("/grpc.testing.TestService/{method}").parse().unwrap()
}

impl TestService {
    async fn at<Q, A>(&mut self, path: PathAndQuery, request: Request<Q>) -> Result<Response<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.0.ready().await.unwrap();
        self.0.unary(request, path, ProstCodec::default()).await
    }

    async fn empty(&mut self) -> Result<Response<Empty>, Status> {
        self.at(path("EmptyCall"), Request::new(Empty {})).await
    }

    async fn unary(
        &mut self,
        request: impl tonic::IntoRequest<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        self.at(path("UnaryCall"), request.into_request()).await
    }

    async fn input(
        &mut self,
        requests: impl Stream<Item = StreamingInputCallRequest> + Send + 'static,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        self.0.ready().await.unwrap();
        let codec = ProstCodec::default();
        self.0.client_streaming(Request::new(requests), path("StreamingInputCall"), codec).await
    }

    async fn output(
        &mut self,
        request: StreamingOutputCallRequest,
    ) -> Result<Streaming<StreamingOutputCallResponse>, Status> {
        self.0.ready().await.unwrap();
        let codec = ProstCodec::default();
        let answer = self.0.server_streaming(Request::new(request), path("StreamingOutputCall"), codec).await;
        answer.map(Response::into_inner)
    }

    async fn duplex(
        &mut self,
        requests: Request<impl Stream<Item = StreamingOutputCallRequest> + Send + 'static>,
    ) -> Result<Response<Streaming<StreamingOutputCallResponse>>, Status> {
        self.0.ready().await.unwrap();
        self.0.streaming(requests, path("FullDuplexCall"), ProstCodec::default()).await
    }
}

/// The server, and a client of it.
struct Scene {
    _server: Program,
    _registry: Registry,
    client: TestService,
}

async fn scene() -> Scene {
    let mut server = serve_interop().unwrap();
    let addr = server.said("serving ", SOON).await;
    let registry = open(&format!("static:test={addr}")).unwrap();
    let channel = Channel::new(registry.watch(&"test".parse().unwrap()));
    Scene { _server: server, _registry: registry, client: TestService(Grpc::new(channel)) }
}

fn simple(request: usize, response: usize) -> SimpleRequest {
    let response_size = i32::try_from(response).unwrap();
    SimpleRequest { response_size, payload: Some(Payload::of(request)), response_status: None }
}

fn asking(sizes: &[usize], payload: usize) -> StreamingOutputCallRequest {
    let of = |size: &usize| ResponseParameters { size: i32::try_from(*size).unwrap() };
    StreamingOutputCallRequest {
        response_parameters: sizes.iter().map(of).collect(),
        payload: Some(Payload::of(payload)),
        response_status: None,
    }
}

fn size(answer: &StreamingOutputCallResponse) -> usize {
    answer.payload.as_ref().unwrap().body.len()
}

/// `empty_unary`, `large_unary`, and messages of four megabytes, which are the most that either side takes by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unary_calls_of_all_sizes() {
    let mut scene = scene().await;
    let answer = scene.client.empty().await.unwrap();
    assert!(answer.extensions().get::<Arc<Instance>>().is_some());
    for (request, response) in [(0, 0), (271_828, 314_159), (4_190_000, 4_190_000)] {
        let answer = scene.client.unary(simple(request, response)).await.unwrap().into_inner();
        assert_eq!(answer.payload.unwrap_or_default().body, vec![0; response]);
    }
    let error = scene.client.unary(simple(4_200_000, 1)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    scene.client.empty().await.unwrap();
}

/// `client_compressed_unary` and `server_compressed_unary`, as far as this server minds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_calls() {
    let scene = scene().await;
    let gzip = CompressionEncoding::Gzip;
    let mut client = TestService(scene.client.0.clone().send_compressed(gzip).accept_compressed(gzip));
    let answer = client.unary(simple(271_828, 314_159)).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert_eq!(answer.into_inner().payload.unwrap().body.len(), 314_159);
}

/// `client_streaming`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_a_stream() {
    let mut scene = scene().await;
    let sizes = [27_182, 8, 1_828, 45_904];
    let requests = sizes.map(|size| StreamingInputCallRequest { payload: Some(Payload::of(size)) });
    let answer = scene.client.input(tokio_stream::iter(requests)).await.unwrap();
    assert_eq!(answer.into_inner().aggregated_payload_size, 74_922);
}

/// `server_streaming`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_a_stream() {
    let mut scene = scene().await;
    let sizes = [31_415, 9, 2_653, 58_979];
    let mut answers = scene.client.output(asking(&sizes, 0)).await.unwrap();
    for expected in sizes {
        assert_eq!(size(&answers.message().await.unwrap().unwrap()), expected);
    }
    assert_eq!(answers.message().await.unwrap(), None);
}

/// `ping_pong`, `empty_stream`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_at_once() {
    let mut scene = scene().await;
    let (send, requests) = mpsc::channel(1);
    // This server's head comes with its first message.
    send.send(asking(&[31_415], 27_182)).await.unwrap();
    let answers = scene.client.duplex(Request::new(ReceiverStream::new(requests))).await.unwrap();
    let mut answers = answers.into_inner();
    assert_eq!(size(&answers.message().await.unwrap().unwrap()), 31_415);
    for (request, response) in [(8, 9), (1_828, 2_653), (45_904, 58_979)] {
        send.send(asking(&[response], request)).await.unwrap();
        assert_eq!(size(&answers.message().await.unwrap().unwrap()), response);
    }
    drop(send);
    assert_eq!(answers.message().await.unwrap(), None);

    let none = tokio_stream::iter([]);
    let mut answers = scene.client.duplex(Request::new(none)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap(), None);
}

/// `timeout_on_sleeping_server`: a server that never answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines() {
    let mut scene = scene().await;
    scene.client.empty().await.unwrap();
    let (send, requests) = mpsc::channel(1);
    send.send(asking(&[], 27_182)).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(requests));
    request.set_timeout(Duration::from_millis(50));
    let error = match scene.client.duplex(request).await {
        Ok(answers) => answers.into_inner().message().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
}

/// `custom_metadata`, of a unary call and of a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_comes_back() {
    const INITIAL: &str = "x-grpc-test-echo-initial";
    const TRAILING: &str = "x-grpc-test-echo-trailing-bin";
    fn with<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(INITIAL, "test_initial_metadata_value".parse().unwrap());
        request.metadata_mut().insert_bin(TRAILING, MetadataValue::from_bytes(&[0xab; 3]));
        request
    }
    let mut scene = scene().await;
    let answer = scene.client.unary(with(simple(271_828, 314_159))).await.unwrap();
    let metadata = answer.metadata();
    assert_eq!(metadata.get(INITIAL).unwrap(), "test_initial_metadata_value");
    assert_eq!(metadata.get_bin(TRAILING).unwrap().to_bytes().unwrap(), vec![0xab; 3]);

    let requests = tokio_stream::iter([asking(&[314_159], 271_828)]);
    let answer = scene.client.duplex(with(requests)).await.unwrap();
    assert_eq!(answer.metadata().get(INITIAL).unwrap(), "test_initial_metadata_value");
    let mut answers = answer.into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let trailers = answers.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get_bin(TRAILING).unwrap().to_bytes().unwrap(), vec![0xab; 3]);
}

/// `status_code_and_message`, `special_status_message`, `unimplemented_method`, `unimplemented_service`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_status() {
    let mut scene = scene().await;
    for message in ["test status message", "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"]
    {
        let status = EchoStatus { code: 2, message: message.to_owned() };
        let request = SimpleRequest { response_status: Some(status.clone()), ..SimpleRequest::default() };
        let error = scene.client.unary(request).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unknown, message));
        let request = StreamingOutputCallRequest { response_status: Some(status), ..asking(&[], 0) };
        let answers = scene.client.duplex(Request::new(tokio_stream::iter([request]))).await;
        let error = match answers {
            Ok(answers) => answers.into_inner().message().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!((error.code(), error.message()), (Code::Unknown, message));
    }
    for unknown in
        [path("UnimplementedCall"), "/grpc.testing.UnimplementedService/UnimplementedCall".parse().unwrap()]
    {
        let error = scene.client.at::<_, Empty>(unknown, Request::new(Empty {})).await.unwrap_err();
        assert_eq!(error.code(), Code::Unimplemented, "{error:?}");
    }
}

/// A thousand streams at once, all of which are open before one of them goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once() {
    const STREAMS: usize = 1000;
    let scene = scene().await;
    let (all, mut tasks) = (Arc::new(Barrier::new(STREAMS)), JoinSet::new());
    for n in 0..STREAMS {
        let (mut client, all) = (scene.client.clone(), Arc::clone(&all));
        tasks.spawn(async move {
            let (send, requests) = mpsc::channel(1);
            send.send(asking(&[n], 100)).await.unwrap();
            let answers = client.duplex(Request::new(ReceiverStream::new(requests))).await.unwrap();
            let mut answers = answers.into_inner();
            for round in 1..=3 {
                assert_eq!(size(&answers.message().await.unwrap().unwrap()), n + round - 1);
                all.wait().await;
                send.send(asking(&[n + round], 100)).await.unwrap();
            }
            assert_eq!(size(&answers.message().await.unwrap().unwrap()), n + 3);
            drop(send);
            assert_eq!(answers.message().await.unwrap(), None);
        });
    }
    let ended = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    };
    timeout(SOON * 2, ended).await.expect("all end");
}
