//! [`Connection`]: one HTTP/1.1 request after the other over one connection, and nothing else.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::Result;

#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    line: String,
    /// Of the last answer.
    body: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), line: String::new(), body: Vec::new() })
    }

    /// Reads all of the answer, and returns Consul's index, 0 if it says none.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<u64> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: consul\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        if !self.line().await?.starts_with("HTTP/1.1 200") {
            return Err(format!("{path}: {}", self.line).into());
        }
        let (mut index, mut length) = (0, None);
        loop {
            let line = self.line().await?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("x-consul-index", value)) => index = value.parse()?,
                Some(("content-length", value)) => length = Some(value.parse()?),
                Some(_) => {}
                None => break,
            }
        }
        self.body.clear();
        match length {
            Some(length) => self.read(length).await?,
            None => self.read_chunks().await?,
        }
        Ok(index)
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Result<&str> {
        self.line.clear();
        if self.stream.read_line(&mut self.line).await? == 0 {
            return Err("the connection ended".into());
        }
        Ok(self.line.trim_end())
    }

    async fn read(&mut self, length: usize) -> Result<()> {
        let before = self.body.len();
        self.body.resize(before + length, 0);
        self.stream.read_exact(&mut self.body[before..]).await?;
        Ok(())
    }

    async fn read_chunks(&mut self) -> Result<()> {
        loop {
            let length = usize::from_str_radix(self.line().await?, 16)?;
            self.read(length).await?;
            self.line().await?;
            if length == 0 {
                return Ok(());
            }
        }
    }
}
