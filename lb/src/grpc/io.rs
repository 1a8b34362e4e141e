//! [`WatchedIo`]: a TCP stream that notices what its HTTP/2 connection does not tell: the server's first frame,
//! its word that it goes away, and the end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::factory::Lifeline;

/// Cuts its lifeline when it is read to its end, fails or is dropped, and when the server sends GOAWAY.
pub(super) struct WatchedIo {
    io: TcpStream,
    /// `None` where the bytes are to be encrypted.
    frames: Option<Frames>,
    written: bool,
    /// Told of the server's SETTINGS, its first frame.
    greeted: Option<oneshot::Sender<()>>,
    lifeline: Lifeline,
}

impl WatchedIo {
    pub(super) fn new(io: TcpStream, plain: bool, greeted: oneshot::Sender<()>, lifeline: Lifeline) -> Self {
        Self { io, frames: plain.then(Frames::default), written: false, greeted: Some(greeted), lifeline }
    }

    fn observe(&mut self, bytes: &[u8]) {
        let Some(frames) = &mut self.frames else { return };
        let (greeted, lifeline) = (&mut self.greeted, &self.lifeline);
        frames.feed(bytes, |kind| match kind {
            Frames::SETTINGS => {
                if let Some(greeted) = greeted.take() {
                    // Nobody listens any more if the dial was given up.
                    let _ = greeted.send(());
                }
            }
            Frames::GOAWAY => lifeline.cut(),
            _ => {}
        });
    }

    /// tonic, built without TLS, speaks plain text to an `https` endpoint without a word. Nothing of a call is to be
    /// readable that was to be secret.
    fn check_secrecy(&mut self, first: &[u8]) -> io::Result<()> {
        let plain = self.frames.is_none() && !self.written && first.starts_with(b"PRI * HTTP/2");
        self.written |= !first.is_empty();
        if plain {
            self.lifeline.cut();
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "TLS was asked for and is not set up: build tonic with one of its TLS features, and give the endpoint \
                 a tls_config",
            ));
        }
        Ok(())
    }

    fn check<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.lifeline.cut();
        }
        result
    }
}

impl Drop for WatchedIo {
    fn drop(&mut self) {
        self.lifeline.cut();
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        let read = &buf.filled()[before..];
        if read.is_empty() && room > 0 {
            self.lifeline.cut();
        }
        self.observe(read);
        Poll::Ready(self.check(result))
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_secrecy(buf)?;
        let result = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
        Poll::Ready(self.check(result))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.io).poll_flush(cx));
        Poll::Ready(self.check(result))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lifeline.cut();
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_secrecy(bufs.first().map_or(&[], |buf| buf))?;
        let result = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs));
        Poll::Ready(self.check(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Finds the frame headers in a stream of HTTP/2 bytes (RFC 9113, 4.1), whichever way it is cut up.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; 9],
    have: usize,
    skip: usize,
}

impl Frames {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;

    /// Calls `seen` with the type of each frame whose header ends in `bytes`.
    fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (self.header.len() - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.header.len() {
                let [a, b, c, kind, ..] = self.header;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.have = 0;
                seen(kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, len: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, len, kind, 0, 0, 0, 0, 0];
        // Payload that looks like a GOAWAY header must not be taken for one.
        frame.extend(std::iter::repeat_n(7, len.into()));
        frame
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let bytes = [frame(4, 6), frame(0, 200), frame(1, 0), frame(7, 8), frame(4, 0)].concat();
        for size in 1..=bytes.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for chunk in bytes.chunks(size) {
                frames.feed(chunk, |kind| seen.push(kind));
            }
            assert_eq!(seen, [4, 0, 1, 7, 4], "in pieces of {size}");
        }
    }
}
