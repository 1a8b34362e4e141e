//! [`Dial`]: opens one connection to an instance, up to the server's first word.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use callsign_core::{Address, Connector, Trouble};
use h2::client::Builder;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use super::super::frames::{Frame, Frames};
use super::super::io::{Watch, WatchedIo};
use super::super::transport::NotGreeted;
use super::driver::Driver;
use super::keepalive::Keepalive;
use super::lane::{Common, Lane, Line};
use crate::error::BoxError;

/// How long a connection may take to close when nobody has a use for it any more.
const CLOSE: Duration = Duration::from_secs(1);

/// How much of an answer may be under way, and of all answers on a connection: enough for a fast and long way.
const STREAM_WINDOW: u32 = 2 << 20;
const WINDOW: u32 = 5 << 20;
/// What data in small pieces may cost beside its bytes, each as much as it lacks of 256: as much as that window can hold, as no
/// message of gRPC has less than 5. With more h2 gives the connection up, and it is for the window to hold a server up.
const SMALL: usize = WINDOW as usize / 5 * 251;
/// How much of a request is kept until it is written.
const SEND_BUFFER: usize = 1 << 20;
/// The most bytes of an answer's head, or of its trailers.
const HEAD: u32 = 16 << 10;

/// How many streams that were cancelled within a second are remembered. What still comes of others is an error, and with 1,024
/// errors h2 gives a connection up.
const CANCELLED: usize = 10_000;

/// HTTP/2 with the figures that hyper and tonic have, and with no end to a connection for what is no fault of the server.
fn http2() -> Builder {
    let mut http2 = Builder::new();
    http2
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .data_frame_budget(SMALL)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEAD)
        .max_concurrent_reset_streams(CANCELLED)
        .enable_push(false);
    http2
}

/// How to connect to one instance.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) connector: Arc<Connector>,
    pub(super) address: Address,
    /// The socket to use in its place.
    pub(super) unix: Option<PathBuf>,
    /// The name that the server's certificate must be for, if it is not that of the settings.
    pub(super) server_name: Option<String>,
    pub(super) keepalive: Option<(Duration, Duration)>,
    pub(super) streams: usize,
}

impl Dial {
    /// Connects, and waits until the server has said how it is to be spoken to. Bounded by the caller's patience; dropped, it
    /// closes.
    pub(super) async fn run(&self, common: &Arc<Common>) -> Result<(Arc<Lane>, Driver), BoxError> {
        let trouble = Trouble::default();
        let stream = match &self.unix {
            Some(path) => self.connector.connect_unix(path, &trouble).await?,
            None => self.connector.connect_as(&self.address, self.server_name.as_deref(), &trouble).await?,
        };
        if stream.is_tls() && stream.protocol() != Some(b"h2") {
            let text = "the server does not offer HTTP/2 over TLS (ALPN): is it a gRPC server?";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
        }
        let line = Arc::new(Line::new(Arc::clone(common), self.streams));
        let (hold, held) = oneshot::channel();
        let (greeted, greeting) = oneshot::channel();
        let note = Note {
            line: Arc::clone(&line),
            sent: Frames::of_a_client(),
            has_ended: false,
            greeted: Some(greeted),
            held: Some(held),
            close: None,
        };
        let io = WatchedIo::new(stream, true, note);
        let (sender, mut connection) = http2().handshake::<_, Bytes>(io).await?;
        let keepalive =
            self.keepalive.zip(connection.ping_pong()).map(|(times, pings)| Keepalive::new(pings, times));
        let mut driver = Driver::new(Arc::clone(&line), connection, keepalive);
        // A listener that nobody looks after lets everybody connect.
        let is_there = tokio::select! {
            biased;
            greeted = greeting => greeted.is_ok(),
            () = &mut driver => false,
        };
        if !is_there {
            return Err(match trouble.last() {
                Some(why) => io::Error::new(io::ErrorKind::ConnectionReset, why).into(),
                None => NotGreeted(self.address.clone()).into(),
            });
        }
        Ok((Arc::new(Lane::new(line, sender, hold)), driver))
    }
}

/// Notes what happens on a connection, and ends it if it takes too long to close.
pub(super) struct Note {
    line: Arc<Line>,
    sent: Frames,
    has_ended: bool,
    /// Told of the server's SETTINGS, its first frame.
    greeted: Option<oneshot::Sender<()>>,
    /// Ends when nobody has a use for the connection any more.
    held: Option<oneshot::Receiver<()>>,
    close: Option<Pin<Box<Sleep>>>,
}

impl Watch for Note {
    fn reads(&mut self) {
        self.line.note_read();
    }

    fn sees(&mut self, frame: Frame) {
        match frame {
            Frame::Settings { streams } => {
                if let Some(streams) = streams {
                    self.line.allow(streams);
                }
                if let Some(greeted) = self.greeted.take() {
                    // Nobody listens any more if the dial was given up.
                    let _ = greeted.send(());
                }
            }
            Frame::GoAway => self.line.shut(),
            Frame::Headers { .. } => {}
        }
    }

    /// Nothing leaves after the end: calls are told by then whether they have left.
    fn writes(&mut self, _: &[u8]) -> io::Result<()> {
        if self.has_ended { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn wrote(&mut self, bytes: &[u8]) {
        self.sent.feed(bytes, |frame| {
            if let Frame::Headers { stream } = frame {
                self.line.note_sent(stream);
            }
        });
    }

    fn ends(&mut self) {
        self.has_ended = true;
        self.line.shut();
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> Option<&'static str> {
        if self.line.is_given_up() {
            return Some("the server has not answered a ping in time");
        }
        if let Some(held) = &mut self.held {
            // The calls that it has go on.
            if self.line.taken() > 0 || Pin::new(held).poll(cx).is_pending() {
                return None;
            }
            self.held = None;
            self.close = Some(Box::pin(sleep(CLOSE)));
        }
        let close = self.close.as_mut()?;
        close.as_mut().poll(cx).is_ready().then_some("the connection did not close in time")
    }
}
