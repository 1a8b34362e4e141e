//! A link to a server that can be cut, held up and led elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Connections are carried to this port.
    To(u16),
    /// The same, one second later each way.
    Slow(u16),
    /// Connections are accepted and kept waiting; those that were carried are closed.
    Held,
}

pub(crate) struct Link {
    state: Arc<watch::Sender<State>>,
    pub(crate) port: u16,
    _tasks: JoinSet<()>,
}

impl Link {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(watch::Sender::new(State::To(port)));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                carried.spawn(carry(client, shared.subscribe()));
            }
        });
        Self { state, port: own, _tasks: tasks }
    }

    /// Closes what is open, and treats what comes as `state` says.
    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(crate) fn url(&self, rest: &str) -> String {
        format!("etcd://127.0.0.1:{}{rest}", self.port)
    }
}

async fn carry(mut client: TcpStream, mut state: watch::Receiver<State>) {
    let Ok(state_now) = state.wait_for(|state| *state != State::Held).await.map(|state| *state) else {
        return;
    };
    let (State::To(port) | State::Slow(port)) = state_now else { return };
    let mut server = loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(server) => break server,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let carried = async {
        if state_now == State::To(port) {
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        } else {
            let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
            tokio::join!(delay(from_client, to_server), delay(from_server, to_client));
        }
    };
    tokio::select! {
        () = carried => {}
        _ = state.wait_for(|state| *state != state_now) => {}
    }
}

async fn delay(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let read = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let _ = sender.send((Instant::now() + Duration::from_secs(1), buffer[..read].to_vec()));
        }
    };
    let write = async move {
        while let Some((at, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
