//! [`Dial`]: a connection to one of the addresses that a name has.
//!
//! A name may have many, as that of a headless service in Kubernetes has one for each server, and the system gives them in
//! the same order each time. The first of them may be a machine that is gone, which takes minutes to show, or a process that
//! hangs, which shows only later. So the next is dialled beside one that does not answer soon (RFC 8305), and each dial
//! begins with the address after the one that the last began with.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// How long an address is waited for before the next is dialled as well: RFC 8305, section 5.
const STAGGER: Duration = Duration::from_millis(250);

type Dialling = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

#[derive(Debug, Default)]
pub(super) struct Dial {
    /// How many were made.
    made: AtomicUsize,
}

impl Dial {
    /// Connects to one of the addresses of a host. Cancel-safe: dropped, it dials no more.
    pub(super) async fn connect(&self, host: &str, port: u16, loopback_only: bool) -> io::Result<TcpStream> {
        let mut found: Vec<_> = lookup_host((host, port)).await?.collect();
        if loopback_only {
            let first = found.first().copied();
            found.retain(|address| address.ip().to_canonical().is_loopback());
            if let (Some(other), []) = (first, found.as_slice()) {
                return Err(leaves_this_machine(host, other));
            }
        }
        self.connect_to_any(found).await
    }

    async fn connect_to_any(&self, mut found: Vec<SocketAddr>) -> io::Result<TcpStream> {
        if let [address] = found[..] {
            return TcpStream::connect(address).await;
        }
        let turn = self.made.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(found.len()).unwrap_or(0);
        found.rotate_left(first);
        first_to_answer(&found).await
    }
}

fn leaves_this_machine(host: &str, address: SocketAddr) -> io::Error {
    let text = format!(
        "{host} is {}, which is not this machine: a password would cross the network in the clear: use TLS, or allow it by \
         insecure_plaintext_password=true",
        address.ip()
    );
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// Dials addresses in their order, the next one once the last has failed or taken its time.
async fn first_to_answer(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut addresses = addresses.iter();
    let mut dialling: Vec<Dialling> = Vec::new();
    let mut failed = None;
    loop {
        match addresses.next() {
            Some(address) => dialling.push(Box::pin(TcpStream::connect(*address))),
            None if dialling.is_empty() => {
                let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(failed.unwrap_or_else(none));
            }
            None => {}
        }
        let answer = if addresses.len() == 0 {
            Ok(any_of(&mut dialling).await)
        } else {
            timeout(STAGGER, any_of(&mut dialling)).await
        };
        match answer {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = Some(error),
            Err(_) => {}
        }
    }
}

/// The next that ends, which is one less to wait for then.
async fn any_of(dialling: &mut Vec<Dialling>) -> io::Result<TcpStream> {
    poll_fn(|cx| {
        for at in 0..dialling.len() {
            if let Poll::Ready(ended) = dialling[at].as_mut().poll(cx) {
                drop(dialling.swap_remove(at));
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    async fn server() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address that answers nobody, as that of a machine that is gone: its queue is full. It does while the rest is held.
    async fn black_hole() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = timeout(STAGGER, TcpStream::connect(address)).await {
            queue.push(stream.unwrap());
        }
        (address, listener, queue)
    }

    #[tokio::test]
    async fn an_address_that_answers_nobody_costs_a_moment() {
        let (gone, _listener, _queue) = black_hole().await;
        let (_server, good) = server().await;
        let begun = Instant::now();
        let stream = first_to_answer(&[gone, gone, good]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(begun.elapsed() >= STAGGER * 2 && begun.elapsed() < STAGGER * 8, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn one_that_refuses_costs_nothing_and_the_last_error_is_told() {
        let (closed, refuses) = server().await;
        drop(closed);
        let (_server, good) = server().await;
        let stream = first_to_answer(&[refuses, good]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let error = first_to_answer(&[refuses, refuses]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first_to_answer(&[]).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// A process that hangs takes connections, so that only who comes back can do better.
    #[tokio::test]
    async fn each_dial_begins_with_the_next_address() {
        let dial = Dial::default();
        let ((_one, first), (_two, second)) = (server().await, server().await);
        let mut reached = Vec::new();
        for _ in 0..4 {
            let stream = dial.connect_to_any(vec![first, second]).await.unwrap();
            reached.push(stream.peer_addr().unwrap());
        }
        assert_eq!(reached, [first, second, first, second]);
    }
}
