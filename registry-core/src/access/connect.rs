//! [`Connector`]: opens connections to a registry's servers, or to instances, over TLS where that is asked for.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

#[cfg(feature = "http")]
use super::Target;
use super::Tls;
use super::dial::Dial;
#[cfg(feature = "tls")]
use super::rustls::{Handshakes, TlsStream, explain};
use super::words::{INSTANCE, REGISTRY, Words};
use crate::error::Result;
use crate::model::Address;

/// Opens connections, for backends whose client library takes them from outside.
///
/// Certificates in files are read anew for every connection, so that they can be changed while the program runs; if
/// they cannot be used, those that were used last are.
pub struct Connector {
    #[cfg(feature = "tls")]
    tls: Option<Handshakes>,
    loopback_only: bool,
    dial: Dial,
    words: &'static Words,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "tls")]
        let plaintext = self.tls.is_none();
        #[cfg(not(feature = "tls"))]
        let plaintext = true;
        f.debug_struct("Connector").field("plaintext", &plaintext).finish_non_exhaustive()
    }
}

impl Connector {
    /// For servers that speak `protocols` of the application layer (ALPN) over TLS, or in the clear if there is no
    /// `tls`. Reads the files of certificates.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid): certificates or a key that cannot be read or used.
    /// [`Unsupported`](crate::ErrorKind::Unsupported): TLS, in a build without the feature `tls`.
    #[cfg_attr(
        not(feature = "tls"),
        expect(unused_variables, reason = "without TLS there is nothing to agree upon")
    )]
    pub fn new(tls: Option<&Tls>, protocols: &[&str]) -> Result<Self> {
        #[cfg(feature = "tls")]
        return Ok(Self {
            tls: tls.map(|tls| Handshakes::new(tls.clone(), protocols)).transpose()?,
            loopback_only: false,
            dial: Dial::default(),
            words: &REGISTRY,
        });
        #[cfg(not(feature = "tls"))]
        match tls {
            None => Ok(Self { loopback_only: false, dial: Dial::default(), words: &REGISTRY }),
            Some(_) => Err(super::unavailable("whoever connects")),
        }
    }

    /// The same, for servers of this machine and no others.
    #[must_use]
    pub fn loopback_only(mut self) -> Self {
        self.loopback_only = true;
        self
    }

    /// The same, for instances of a service rather than servers of a registry: errors advise whoever calls them.
    #[must_use]
    pub fn for_instances(mut self) -> Self {
        self.words = &INSTANCE;
        self
    }

    /// Opens a connection to either sort of server.
    ///
    /// # Errors
    /// As [`connect`](Self::connect). [`Unsupported`](io::ErrorKind::Unsupported): a socket in the file system on a
    /// system that has none, or over TLS.
    #[cfg(feature = "http")]
    pub(super) async fn connect_to(&self, target: &Target, trouble: &Trouble) -> io::Result<Stream> {
        match target {
            Target::Tcp(address) => self.connect(address, trouble).await,
            Target::Unix(path) => self.connect_unix(path, trouble).await,
        }
    }

    /// Opens a connection to a socket in the file system of this machine, in the clear.
    ///
    /// # Errors
    /// The system's. [`Unsupported`](io::ErrorKind::Unsupported): the system has none, or TLS is asked for.
    #[cfg(unix)]
    pub async fn connect_unix(&self, path: &Path, trouble: &Trouble) -> io::Result<Stream> {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            let text = format!("{UNIX_TLS}: {}", self.words.without_tls);
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        *trouble.lock() = None;
        let io = Inner::Unix(UnixStream::connect(path).await?);
        Ok(Stream { io, words: self.words, silent: Some(trouble.clone()) })
    }

    /// Opens a connection to a socket in the file system of this machine, which has none.
    ///
    /// # Errors
    /// [`Unsupported`](io::ErrorKind::Unsupported), always.
    #[cfg(not(unix))]
    pub async fn connect_unix(&self, _: &Path, _: &Trouble) -> io::Result<Stream> {
        let text = "this system has no sockets in the file system";
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    /// Opens a connection, to any of the addresses that a name has: to the next one each time, and soon to the one after it
    /// where that does not answer. Bounded by nothing but the caller's patience; dropped, it closes. `trouble` is told if the
    /// server refuses it later, before its first word: client libraries may lose that.
    ///
    /// # Errors
    /// The system's, and what speaks against the server's certificate or ours.
    pub async fn connect(&self, address: &Address, trouble: &Trouble) -> io::Result<Stream> {
        self.connect_as(address, None, trouble).await
    }

    /// The same, and expects the certificate of a TLS server to be for `name`, if there is one.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); and `name` is neither an IP address nor a DNS name.
    #[cfg_attr(
        not(feature = "tls"),
        expect(unused_variables, reason = "without TLS there is nobody to expect")
    )]
    pub async fn connect_as(
        &self,
        address: &Address,
        name: Option<&str>,
        trouble: &Trouble,
    ) -> io::Result<Stream> {
        *trouble.lock() = None;
        let tcp = self.dial.connect(address.host(), address.port(), self.loopback_only).await?;
        // Requests are small, and wait for their answers.
        tcp.set_nodelay(true)?;
        let io = match self {
            #[cfg(feature = "tls")]
            Self { tls: Some(tls), .. } => Inner::Tls(
                tls.shake_hands(name.unwrap_or(address.host()), name.is_some(), tcp, self.words).await?,
                tls.shows_certificate(),
            ),
            _ => Inner::Plain(tcp),
        };
        Ok(Stream { io, words: self.words, silent: Some(trouble.clone()) })
    }
}

/// Why a server refused the last connection before it had said anything: a certificate that it does not accept shows
/// only then. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// What the server said, if the last connection was refused.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to a registry's server, or to an instance.
#[derive(Debug)]
pub struct Stream {
    io: Inner,
    words: &'static Words,
    /// Until the server has said something.
    silent: Option<Trouble>,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<TcpStream>>, bool),
}

/// A TLS server has no words for who speaks in the clear: it sends an alert or just closes.
const SPEAKS_TLS: &str = "the server speaks TLS: ask for it";
const CLOSED: &str =
    "the server closed the connection without a word: it went away, or it speaks TLS, which is asked for";
#[cfg(all(feature = "tls", unix))]
const UNIX_TLS: &str = "a socket in the file system is not reached over TLS";
/// How a TLS alert begins: its content type and the protocol's major version.
const ALERT: [u8; 2] = [0x15, 0x03];

impl Stream {
    /// The protocol of the application layer that the server has chosen (ALPN), if TLS is spoken and it has.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        match &self.io {
            #[cfg(feature = "tls")]
            Inner::Tls(tls, _) => tls.get_ref().1.alpn_protocol(),
            _ => None,
        }
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        match &self.io {
            #[cfg(feature = "tls")]
            Inner::Tls(..) => true,
            _ => false,
        }
    }

    /// What came first, and what it means.
    fn first(&mut self, said: io::Result<&[u8]>) -> io::Result<()> {
        let plain = matches!(self.io, Inner::Plain(_));
        let error = match said {
            Ok([]) if plain => io::Error::new(io::ErrorKind::ConnectionReset, self.advise(CLOSED)),
            Ok(said) if plain && said.starts_with(&ALERT) => {
                io::Error::new(io::ErrorKind::InvalidData, self.advise(SPEAKS_TLS))
            }
            Ok(_) => {
                if let Some(trouble) = self.silent.take() {
                    *trouble.lock() = None;
                }
                return Ok(());
            }
            Err(error) => error,
        };
        Err(self.failed(error))
    }

    fn advise(&self, what: &str) -> String {
        format!("{what} {}", self.words.with_tls)
    }

    /// A server that closes at once may have said why: that is still to be read, so a write into the void succeeds.
    fn wrote<T>(&self, written: io::Result<T>, all: T) -> io::Result<T> {
        written.or_else(|error| {
            if closed(&error) && self.silent.is_some() { Ok(all) } else { Err(self.failed(error)) }
        })
    }

    /// The same error, in better words, and noted.
    fn failed(&self, error: io::Error) -> io::Error {
        let error = match &self.io {
            Inner::Plain(_) if closed(&error) && self.silent.is_some() => {
                io::Error::new(error.kind(), self.advise(CLOSED))
            }
            Inner::Plain(_) => error,
            #[cfg(unix)]
            Inner::Unix(_) => error,
            #[cfg(feature = "tls")]
            Inner::Tls(_, shown) => explain(error, *shown, self.words),
        };
        if let Some(trouble) = &self.silent {
            *trouble.lock() = Some(error.to_string());
        }
        error
    }
}

/// Whether all that is known is that the other end has gone.
pub(super) fn closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

macro_rules! io {
    ($stream:ident, $call:ident($($argument:expr),*)) => {
        match &mut $stream.io {
            Inner::Plain(tcp) => Pin::new(tcp).$call($($argument),*),
            #[cfg(unix)]
            Inner::Unix(unix) => Pin::new(unix).$call($($argument),*),
            #[cfg(feature = "tls")]
            Inner::Tls(tls, _) => Pin::new(tls).$call($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = ready!(io!(this, poll_read(cx, buf)));
        if this.silent.is_none() {
            return Poll::Ready(read.map_err(|error| this.failed(error)));
        }
        Poll::Ready(this.first(read.map(|()| buf.filled().get(before..).unwrap_or_default())))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        io!(this, poll_write(cx, bytes)).map(|written| this.wrote(written, bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = bytes.iter().map(|bytes| bytes.len()).sum();
        io!(this, poll_write_vectored(cx, bytes)).map(|written| this.wrote(written, length))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Inner::Plain(tcp) => tcp.is_write_vectored(),
            #[cfg(unix)]
            Inner::Unix(unix) => unix.is_write_vectored(),
            #[cfg(feature = "tls")]
            Inner::Tls(tls, _) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        io!(this, poll_flush(cx)).map(|flushed| this.wrote(flushed, ()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        io!(this, poll_shutdown(cx))
    }
}
