//! The server that all call: tonic's, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use callsign_bench_figures::Result;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tonic::transport::Server as Tonic;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::proto::Message;
use crate::proto::bench_server::{Bench, BenchServer};

struct Echo;

#[async_trait]
impl Bench for Echo {
    async fn call(&self, request: Request<Message>) -> std::result::Result<Response<Message>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    type StreamStream = Streaming<Message>;

    async fn stream(
        &self,
        request: Request<Streaming<Message>>,
    ) -> std::result::Result<Response<Streaming<Message>>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

/// Serves until its standard input ends, and says where.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let mut input = tokio::io::stdin();
    let ends = async move {
        let _ = input.read(&mut [0]).await;
    };
    Ok(Tonic::builder()
        .add_service(BenchServer::new(Echo))
        .serve_with_incoming_shutdown(incoming, ends)
        .await?)
}

/// The process, which ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        Ok(Self { address: line.trim().parse()?, child })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
