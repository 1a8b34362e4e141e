//! [`Server`]: a real server, which can be killed, paused, wiped and started again on the same port.
//!
//! It ends with the test, however that ends: see [`Running`].

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::container::Image;
use crate::ports::Port;
use crate::provider::{Provider, Running};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(60);
/// How long a server may take to end once it was asked to.
const STOP: Duration = Duration::from_secs(20);

/// A kind of server: how to run it, and how to see that it answers.
#[async_trait]
pub trait Kind: Debug + Send + Sync + 'static {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// Writes what it reads when it starts, as a file of its configuration, into `data`. Before each start.
    ///
    /// # Errors
    /// It cannot be written.
    fn prepare(&self, _port: u16, _second: u16, _data: &Path) -> io::Result<()> {
        Ok(())
    }

    /// The program, a name where it is that of [`image`](Self::image), and its arguments: to serve on `port`, with a second port for whatever it wants one for,
    /// keeping its data in `data`, a folder that exists and is empty at first.
    fn command(&self, port: u16, second: u16, data: &Path) -> (PathBuf, Vec<OsString>);

    /// The image whose containers run it.
    fn image(&self) -> Image;

    /// Whether it serves at `addr` by now.
    async fn answers(&self, addr: SocketAddr) -> bool;
}

/// One server on a port of its own, with its data in a temporary folder. Not running at first.
#[derive(Debug)]
pub struct Server<K> {
    // Before all that it uses, and thus the first to be dropped.
    running: Option<Running>,
    provider: Provider,
    kind: K,
    port: Port,
    second: Port,
    home: TempDir,
    wipes: u32,
}

impl<K: Kind> Server<K> {
    /// Reserves what a server needs; starts nothing.
    ///
    /// # Errors
    /// No free port, or no temporary folder.
    pub fn new(kind: K) -> io::Result<Self> {
        Self::on(kind, Port::reserve()?, Port::reserve()?)
    }

    /// The same on ports that were reserved before, for servers that must know each other's.
    ///
    /// # Errors
    /// No temporary folder, or the environment names a [provider](Provider) that is not known.
    pub fn on(kind: K, port: Port, second: Port) -> io::Result<Self> {
        let home = crate::home::folder()?;
        Ok(Self { running: None, provider: Provider::chosen()?, kind, port, second, home, wipes: 0 })
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> &K {
        &self.kind
    }

    /// Where it serves, while it does.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Its second port, for whatever it wants one for.
    #[must_use]
    pub fn second(&self) -> &Port {
        &self.second
    }

    /// Whether it was started and not ended; a paused one is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts it on the data it has, and waits until it answers. Nothing, if it runs.
    ///
    /// # Errors
    /// It cannot be started, ended at once, or does not answer within a minute; with the end of its log.
    pub async fn start(&mut self) -> io::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        self.launch()?;
        self.ready().await
    }

    /// Waits until what was [launched](Self::launch) answers.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn ready(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while !self.kind.answers(self.addr()).await {
            let ended = self.running.as_mut().map_or(Ok(None), Running::try_ended)?;
            if ended.is_some() || start.elapsed() > START {
                self.running = None;
                let how = ended.map_or("did not answer".to_owned(), |status| format!("ended by {status}"));
                return Err(io::Error::other(format!(
                    "{} {how}; its log ends in:\n{}",
                    self.kind.name(),
                    self.log()
                )));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Starts the process and does not wait for it to answer.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch(&mut self) -> io::Result<()> {
        let data = self.data();
        std::fs::create_dir_all(&data)?;
        self.kind.prepare(self.port.number(), self.second.number(), &data)?;
        let (program, arguments) = self.kind.command(self.port.number(), self.second.number(), &data);
        let log = File::options().create(true).append(true).open(self.home.path().join("log"))?;
        let running = self
            .provider
            .run((&program, &arguments), &self.kind.image(), self.home.path(), log)
            .map_err(|error| io::Error::other(format!("cannot run {}: {error}", program.display())))?;
        self.running = Some(running);
        Ok(())
    }

    /// Ends it with no warning, as a crash does. Its data stays.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Asks it to end, and waits until it has. Its data stays.
    ///
    /// # Errors
    /// It does not end within 20 s; it is killed then.
    pub async fn stop(&mut self) -> io::Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.stop(STOP).await.map(drop)
    }

    /// Freezes it: it keeps its connections, accepts new ones, and answers nothing.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.running()?.pause()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.running()?.resume()
    }

    /// Kills it and takes its data away: the next start is a first start, on the same port.
    pub fn wipe(&mut self) {
        self.kill();
        // Not removed now: a large folder takes its time, and it all goes in the end.
        self.wipes += 1;
    }

    /// Copies its data, which it must not be changing: for one that was [stopped](Self::stop) in order.
    ///
    /// # Errors
    /// The data cannot be read, or the copy not written.
    pub fn backup(&self) -> io::Result<Backup> {
        let copy = crate::home::folder()?;
        copy_dir(&self.data(), copy.path())?;
        Ok(Backup(copy))
    }

    /// Kills it and puts other data in the place of its own: the next start is that of a server restored.
    ///
    /// # Errors
    /// The data cannot be copied.
    pub fn restore(&mut self, backup: &Backup) -> io::Result<()> {
        self.wipe();
        copy_dir(backup.0.path(), &self.data())
    }

    /// Kills it and starts it again on the same data.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> io::Result<()> {
        self.kill();
        self.start().await
    }

    /// Its process id.
    ///
    /// # Errors
    /// It does not run.
    pub fn id(&self) -> io::Result<u32> {
        self.running()?.id()
    }

    /// The last lines of what it printed.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.home.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The folder of its present data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.path().join(format!("data{}", self.wipes))
    }

    fn running(&self) -> io::Result<&Running> {
        let name = self.kind.name();
        self.running.as_ref().ok_or_else(|| io::Error::other(format!("{name} does not run")))
    }
}

/// A copy of a server's data.
#[derive(Debug)]
pub struct Backup(TempDir);

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
