//! Bodies of requests and answers on the channel's own transport, seen from the server's side of HTTP/2.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use callsign_lb::grpc::{Channel, ResponseBody};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use support::{Script, within};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service;

type Frame = http_body::Frame<Bytes>;
type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// A server of one connection, whose calls the test answers.
struct Peer {
    calls: mpsc::UnboundedReceiver<Call>,
    _script: Script,
    _connection: AbortOnDropHandle<()>,
}

impl Peer {
    async fn start(http2: Builder) -> (Self, Channel) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (script, _registry, watch) = Script::open();
        let channel = Channel::new(watch);
        script.lists([listener.local_addr().unwrap().port()]);
        let (taken, calls) = mpsc::unbounded_channel();
        let connection = spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = http2.handshake(stream).await.unwrap();
            while let Some(Ok(call)) = connection.accept().await {
                taken.send(call).unwrap();
            }
        });
        channel.endpoints().wait_for(|set| set.len() == 1).await;
        (Self { calls, _script: script, _connection: connection }, channel)
    }

    async fn accept(&mut self) -> Call {
        soon("a call", self.calls.recv()).await.unwrap()
    }
}

fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(Handle::current().spawn(future))
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(Duration::from_secs(5), what, future).await
}

type Frames = mpsc::Sender<Result<Frame, Status>>;

/// A request, and where to put its frames.
fn request() -> (Request<Body>, Frames) {
    let (frames, body) = mpsc::channel(1);
    let body = Body::new(StreamBody::new(ReceiverStream::new(body)));
    (Request::post("/test").body(body).unwrap(), frames)
}

fn data(bytes: impl Into<Bytes>) -> Result<Frame, Status> {
    Ok(Frame::data(bytes.into()))
}

/// Calls with a request whose answer has begun, and whose body has not ended.
async fn two_ways(
    peer: &mut Peer,
    channel: &mut Channel,
) -> (Frames, ResponseBody, RecvStream, SendStream<Bytes>) {
    let (request, frames) = request();
    let calling = spawn(channel.call(request));
    let (asked, mut answer) = peer.accept().await;
    let stream = answer.send_response(Response::new(()), false).unwrap();
    let answer = soon("an answer", calling).await.unwrap().unwrap();
    (frames, answer.into_body(), asked.into_body(), stream)
}

fn ok() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

async fn next(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = soon("data", body.data()).await;
    if let Some(Ok(data)) = &data {
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    data
}

/// The small request of a unary call is its head and one frame of data, which is the last.
#[tokio::test]
async fn the_last_frame_says_that_it_is() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let body = Body::new(StreamBody::new(tokio_stream::iter([data("all")])));
    let calling = spawn(channel.call(Request::new(body)));
    let (asked, mut answer) = peer.accept().await;
    let mut body = asked.into_body();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "all");
    assert!(body.is_end_stream(), "nothing comes behind it");
    let mut stream = answer.send_response(Response::new(()), false).unwrap();
    stream.send_data("answer".into(), false).unwrap();
    stream.send_trailers(ok()).unwrap();
    let answer = soon("an answer", calling).await.unwrap().unwrap().into_body();
    let answer = soon("its end", answer.collect()).await.unwrap();
    assert_eq!(answer.trailers(), Some(&ok()));
    assert_eq!(answer.to_bytes(), "answer");
    assert_eq!(channel.endpoints().ready_set().slots()[0].stats().in_flight(), 0);
}

/// Frames leave as they come, the empty ones too in so far as they say something, and trailers end a request.
#[tokio::test]
async fn frames_leave_as_they_come() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let (request, frames) = request();
    let _calling = spawn(channel.call(request));
    let (asked, _answer) = peer.accept().await;
    let mut body = asked.into_body();
    for said in ["one", "two"] {
        frames.send(data(said)).await.unwrap();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), said);
    }
    for frame in [data(""), data("three"), Ok(Frame::trailers(ok()))] {
        soon("a frame is taken", frames.send(frame)).await.unwrap();
    }
    assert_eq!(next(&mut body).await.unwrap().unwrap(), "three");
    assert!(next(&mut body).await.is_none());
    assert_eq!(soon("trailers", body.trailers()).await.unwrap(), Some(ok()));
}

/// What is about a connection of HTTP/1 does not travel, and costs no call.
#[tokio::test]
async fn fields_of_http1_are_left_out() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let fields = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "x-hop"];
    let mut request = Request::new(Body::default());
    for field in fields {
        request.headers_mut().insert(field, HeaderValue::from_static("close, X-Hop"));
    }
    request.headers_mut().insert("te", HeaderValue::from_static("gzip"));
    request.headers_mut().insert("x-own", HeaderValue::from_static("stays"));
    let _calling = spawn(channel.call(request));
    let (asked, _answer) = peer.accept().await;
    let left = fields.iter().chain(&["te"]).filter(|field| asked.headers().contains_key(**field)).count();
    assert_eq!((left, asked.headers()["x-own"].as_bytes()), (0, &b"stays"[..]));
    assert!(asked.into_body().is_end_stream(), "a request without a body is its head");
    // What gRPC needs stays, although HTTP/1 has it named there.
    let mut request = Request::new(Body::default());
    request.headers_mut().insert("connection", HeaderValue::from_static("te"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let _calling = spawn(channel.call(request));
    let (asked, _answer) = peer.accept().await;
    assert_eq!(asked.headers()["te"], "trailers");
}

/// The same of trailers, behind which nothing else would end the request.
#[tokio::test]
async fn trailers_leave_without_fields_of_http1() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let (request, frames) = request();
    let _calling = spawn(channel.call(request));
    let (asked, _answer) = peer.accept().await;
    let mut trailers = ok();
    trailers.insert("connection", HeaderValue::from_static("close"));
    frames.send(Ok(Frame::trailers(trailers))).await.unwrap();
    let mut body = asked.into_body();
    assert!(next(&mut body).await.is_none());
    assert_eq!(soon("trailers", body.trailers()).await.unwrap(), Some(ok()));
}

/// A request larger than all that the server takes at once waits for room, and arrives whole; so does what is in one frame.
#[tokio::test]
async fn a_large_request_waits_for_room() {
    let mut http2 = Builder::new();
    http2.initial_window_size(1_000).initial_connection_window_size(70_000);
    let (mut peer, mut channel) = Peer::start(http2).await;
    for frame in [300_000, 999] {
        let frames = (0..300_000_usize.div_ceil(frame)).map(|_| data(vec![7; frame])).collect::<Vec<_>>();
        let size = frames.len() * frame;
        let body = Body::new(StreamBody::new(tokio_stream::iter(frames)));
        let _calling = spawn(channel.call(Request::new(body)));
        let (asked, _answer) = peer.accept().await;
        let mut body = asked.into_body();
        let mut read = 0;
        while let Some(data) = next(&mut body).await {
            read += data.unwrap().len();
        }
        assert_eq!(read, size);
    }
}

/// What the server has no room for is not taken from the caller either.
#[tokio::test]
async fn a_request_is_taken_no_faster_than_it_leaves() {
    let mut http2 = Builder::new();
    http2.initial_window_size(1_000);
    let (mut peer, mut channel) = Peer::start(http2).await;
    let (request, frames) = request();
    let _calling = spawn(channel.call(request));
    let (asked, _answer) = peer.accept().await;
    let taken = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&taken);
    let _sending = spawn(async move {
        while frames.send(data(vec![7; 1_000])).await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut body = asked.into_body();
    assert_eq!(soon("data", body.data()).await.unwrap().unwrap().len(), 1_000);
    for _ in 0..10 {
        let calling = spawn(channel.call(Request::new(Body::default())));
        let (_, mut answer) = peer.accept().await;
        answer.send_response(Response::new(()), true).unwrap();
        soon("an answer", calling).await.unwrap().unwrap();
    }
    // One that has left, one that is about to, two looked at, and one in the caller's own queue.
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken <= 5, "{taken} were taken");
}

/// Of the request of a call that the server has ended no more is taken, also while nobody reads the answer.
#[tokio::test]
async fn a_server_that_ends_a_call_ends_its_request() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let (frames, _answer, _body, mut stream) = two_ways(&mut peer, &mut channel).await;
    stream.send_reset(Reason::CANCEL);
    soon("the end of the caller's stream", frames.closed()).await;
}

/// A request goes on behind its answer, whether somebody reads that or not.
#[tokio::test]
async fn a_request_goes_on_behind_its_answer() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let (frames, mut answer, mut body, mut stream) = two_ways(&mut peer, &mut channel).await;
    let _sending = spawn(async move {
        for _ in 0..100 {
            frames.send(data(vec![7; 10_000])).await.unwrap();
        }
    });
    let mut read = 0;
    while let Some(data) = next(&mut body).await {
        read += data.unwrap().len();
    }
    assert_eq!(read, 1_000_000);
    stream.send_trailers(ok()).unwrap();
    assert_eq!(soon("trailers", answer.frame()).await.unwrap().unwrap().into_trailers().unwrap(), ok());
}

/// When the caller's own stream fails the server is told, and so is the caller. It says nothing of the instance.
#[tokio::test]
async fn the_callers_failure_behind_its_answer_cancels_the_call() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let (frames, mut answer, mut body, _stream) = two_ways(&mut peer, &mut channel).await;
    frames.send(Err(Status::aborted("mine"))).await.unwrap();
    let error = next(&mut body).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    let status = soon("its end", answer.frame()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Cancelled, "{status}");
    let ready = channel.endpoints().ready_set();
    let stats = ready.slots()[0].stats();
    assert_eq!((stats.in_flight(), stats.outcomes()), (0, (0, 0)));
}

/// The server is told that a call is over by whoever wants no more of its answer; and of its request no more is taken.
#[tokio::test]
async fn who_wants_no_more_of_an_answer_ends_its_request() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let (frames, answer, mut body, _stream) = two_ways(&mut peer, &mut channel).await;
    drop(answer);
    let error = next(&mut body).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    soon("the end of the caller's stream", frames.closed()).await;
}

/// A server that has said all before it has heard all may refuse the rest (RFC 9113, 8.1).
#[tokio::test]
async fn an_answer_that_comes_early_is_whole() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let (frames, answer, body, mut stream) = two_ways(&mut peer, &mut channel).await;
    stream.send_data("answer".into(), false).unwrap();
    stream.send_trailers(ok()).unwrap();
    // Which resets it without an error.
    drop((body, stream));
    let answer = soon("its end", answer.collect()).await.unwrap();
    assert_eq!(answer.trailers(), Some(&ok()));
    assert_eq!(answer.to_bytes(), "answer");
    soon("the end of the caller's stream", frames.closed()).await;
}

/// One that resets a stream without an error and has not said all has broken its answer off.
#[tokio::test]
async fn an_answer_that_is_reset_without_an_error_is_not_whole() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let (_frames, mut answer, _body, mut stream) = two_ways(&mut peer, &mut channel).await;
    stream.send_data("half".into(), false).unwrap();
    assert_eq!(soon("data", answer.frame()).await.unwrap().unwrap().into_data().unwrap(), "half");
    stream.send_reset(Reason::NO_ERROR);
    let status = soon("its end", answer.frame()).await.expect("it has not ended").unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    assert_eq!(channel.endpoints().ready_set().slots()[0].stats().outcomes(), (1, 1));
}

/// Whoever is slow to read an answer of many small messages holds up its server, and nobody else on the connection.
#[tokio::test]
async fn many_small_messages_wait_for_a_slow_reader() {
    let (mut peer, mut channel) = Peer::start(Builder::new()).await;
    let (_frames, answer, _body, mut stream) = two_ways(&mut peer, &mut channel).await;
    const MESSAGES: usize = 50_000;
    for _ in 0..MESSAGES {
        stream.send_data("message".into(), false).unwrap();
    }
    stream.send_trailers(ok()).unwrap();
    // Another call, whose answer comes behind all that.
    let calling = spawn(channel.call(Request::new(Body::default())));
    let (_, mut other) = peer.accept().await;
    other.send_response(Response::new(()), true).unwrap();
    soon("an answer", calling).await.unwrap().unwrap();
    let answer = soon("its end", answer.collect()).await.unwrap();
    assert_eq!(answer.to_bytes().len(), MESSAGES * "message".len());
}
