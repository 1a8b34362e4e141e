//! Connections of the channel's own transport that end, or that must not, seen from the server's side, down to the frame.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper of tests")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use callsign_lb::RoundRobin;
use callsign_lb::grpc::Channel;
use http::Request;
use support::grpc::{Server, answered_by, ask, call, ready};
use support::{Script, within};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic_health::pb::health_client::HealthClient;
use tower_service::Service;

/// Of stream 0, without payload: the length, the type, the flags, the stream.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const PREFACE: usize = 24;
const HEADERS: u8 = 1;
/// An answer's head, of a stream that is to be put in: `:status 200` from HPACK's table, and the end.
const ANSWER: [u8; 10] = [0, 0, 1, HEADERS, 5, 0, 0, 0, 0, 0x88];
/// Of stream 0: the server takes a byte more.
const WINDOW_UPDATE: [u8; 13] = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// The last stream that was looked at is 0, and the error `ENHANCE_YOUR_CALM`.
const CALM: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// Takes one connection and greets it.
fn accept(listener: &TcpListener) -> TcpStream {
    let (mut socket, _) = listener.accept().unwrap();
    socket.write_all(&SETTINGS).unwrap();
    socket
}

/// Reads up to the HEADERS of a call, and returns its stream.
fn called(socket: &mut TcpStream) -> std::io::Result<[u8; 4]> {
    loop {
        let mut header = [0; 9];
        socket.read_exact(&mut header)?;
        let [a, b, c, kind, _, stream @ ..] = header;
        socket.read_exact(&mut vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)])?;
        if kind == HEADERS {
            return Ok(stream);
        }
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(Duration::from_secs(5), what, future).await
}

/// A channel over a listener, of which one connection is accepted, and over a server that answers all calls.
async fn with_a_server(listener: &TcpListener) -> (Script, Channel, Server, TcpStream) {
    let server = Server::start().await;
    let (script, _registry, watch) = Script::open();
    let channel = Channel::builder(watch).policy(RoundRobin::default()).build();
    script.lists([listener.local_addr().unwrap().port(), server.port]);
    let accepting = listener.try_clone().unwrap();
    let socket = Handle::current().spawn_blocking(move || accept(&accepting)).await.unwrap();
    ready(&channel, 2).await;
    (script, channel, server, socket)
}

/// What is put on a connection that has ended, as nobody has seen yet, never leaves, and goes elsewhere.
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "nothing else is to run meanwhile")]
async fn a_call_on_a_connection_that_has_just_ended_goes_elsewhere() {
    for (reset, reads) in [(false, true), (true, true), (true, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_script, channel, server, socket) = with_a_server(&listener).await;
        // Closed with something unread it is reset.
        if reset {
            drop(socket);
        } else {
            socket.shutdown(Shutdown::Write).unwrap();
        }
        // The connection does not get to see it: with an await it is told, and goes behind this task; without one it is not,
        // and sees it as it writes.
        std::thread::sleep(Duration::from_millis(50));
        if reads {
            tokio::task::yield_now().await;
        }
        // Each begins with another instance.
        let mut clients = [channel.clone(), channel.clone()].map(HealthClient::new);
        let [one, two] = &mut clients;
        let answers = tokio::join!(one.check(ask("")), two.check(ask("")));
        for answer in [answers.0, answers.1] {
            assert_eq!(answered_by(&answer.unwrap()), server.port, "reset: {reset}, reads: {reads}");
        }
    }
}

/// What a server says that it has not looked at goes elsewhere, whatever made it go away.
#[tokio::test]
async fn a_call_that_crosses_with_goaway_for_an_error_goes_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_script, channel, server, mut socket) = with_a_server(&listener).await;
    let (dismissed, dismissal) = oneshot::channel();
    let _serving = std::thread::spawn(move || {
        socket.read_exact(&mut [0; PREFACE]).unwrap();
        called(&mut socket).unwrap();
        socket.write_all(&CALM).unwrap();
        dismissed.send(socket).unwrap();
    });
    for _ in 0..2 {
        assert_eq!(answered_by(&call(&channel, "").await.unwrap()), server.port);
    }
    soon("dismissed", dismissal).await.unwrap();
}

/// Answers that cross with the word that nobody waits for them any more are no reason to give a connection up.
#[tokio::test]
async fn many_answers_to_cancelled_calls_end_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (script, _registry, watch) = Script::open();
    let mut channel = Channel::new(watch);
    script.lists([listener.local_addr().unwrap().port()]);
    let (seen, mut calls) = mpsc::unbounded_channel();
    const CANCELLED: usize = 1_100;
    let _serving = std::thread::spawn(move || {
        let mut socket = accept(&listener);
        socket.read_exact(&mut [0; PREFACE]).unwrap();
        let mut answers = Vec::new();
        for _ in 0..CANCELLED + 1 {
            let mut answer = ANSWER;
            answer[5..9].copy_from_slice(&called(&mut socket).unwrap());
            // The first one is answered last.
            answers.insert(0, answer);
            // It has not fallen silent.
            socket.write_all(&WINDOW_UPDATE).unwrap();
            seen.send(()).unwrap();
        }
        socket.write_all(&answers.concat()).unwrap();
        while called(&mut socket).is_ok() {}
    });
    ready(&channel, 1).await;
    let mut begin =
        || AbortOnDropHandle::new(Handle::current().spawn(channel.call(Request::new(Body::default()))));
    let kept = begin();
    soon("the call", calls.recv()).await.unwrap();
    for _ in 0..CANCELLED {
        let calling = begin();
        soon("a call", calls.recv()).await.unwrap();
        drop(calling);
    }
    soon("an answer", kept).await.unwrap().unwrap();
}
