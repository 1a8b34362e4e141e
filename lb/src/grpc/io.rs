//! [`WatchedIo`]: a stream of bytes that notices what its HTTP/2 connection does not tell: the server's first frame,
//! its word that it goes away, and the end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Frame, Frames};

/// Who is told what happens on a connection.
pub(super) trait Watch: Unpin {
    /// Something has been read.
    fn reads(&mut self) {}

    /// The server has sent a frame of note. Only where the bytes are HTTP/2, and not encrypted.
    fn sees(&mut self, frame: Frame);

    /// Something is to be written, which begins with these bytes.
    ///
    /// # Errors
    /// It must not be.
    fn writes(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// This was written, behind all that was before.
    fn wrote(&mut self, _: &[u8]) {}

    /// Nothing more will come of it. May be told several times.
    fn ends(&mut self);

    /// Why the connection has had its time, if it has. Asked whenever it waits; wakes when it has.
    fn is_over(&mut self, _: &mut Context<'_>) -> Option<&'static str> {
        None
    }
}

/// Tells when it is read to its end, fails or is dropped, and which frames the server sends.
pub(super) struct WatchedIo<S, W: Watch> {
    io: S,
    /// `None` where the bytes are encrypted.
    frames: Option<Frames>,
    watch: W,
}

impl<S, W: Watch> WatchedIo<S, W> {
    pub(super) fn new(io: S, plain: bool, watch: W) -> Self {
        Self { io, frames: plain.then(Frames::default), watch }
    }

    fn check<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match &polled {
            Poll::Pending => match self.watch.is_over(cx) {
                Some(why) => {
                    self.watch.ends();
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
                }
                None => polled,
            },
            Poll::Ready(Err(_)) => {
                self.watch.ends();
                polled
            }
            Poll::Ready(Ok(_)) => polled,
        }
    }
}

impl<S, W: Watch> Drop for WatchedIo<S, W> {
    fn drop(&mut self) {
        self.watch.ends();
    }
}

impl<S: AsyncRead + Unpin, W: Watch> AsyncRead for WatchedIo<S, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let (before, room) = (buf.filled().len(), buf.remaining());
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        ready!(this.check(polled, cx))?;
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            this.watch.reads();
        } else if room > 0 {
            this.watch.ends();
        }
        if let Some(frames) = &mut this.frames {
            frames.feed(read, |frame| this.watch.sees(frame));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, W: Watch> AsyncWrite for WatchedIo<S, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.watch.writes(buf)?;
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.watch.wrote(&buf[..written]);
        }
        self.check(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.check(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.ends();
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.check(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch.writes(bufs.first().map_or(&[], |buf| buf))?;
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut left)) = polled {
            for buf in bufs {
                let written = left.min(buf.len());
                self.watch.wrote(&buf[..written]);
                left -= written;
            }
        }
        self.check(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
