//! The demo: two servers and a client, each a process of its own, over a directory that lasts as long as they do.
//!
//! The processes are this program again, so that building it builds all there is to see.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cli::{self, Failure, Signals};
use crate::client::ClientArgs;
use crate::server::ServerArgs;
use crate::text::Lang;
use crate::{client, server};

/// How long the servers have to register, and to leave.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the demo is told.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DemoArgs {
    /// How many calls to make
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    pub calls: u64,
    /// The language of the output
    #[arg(long, value_enum, default_value_t)]
    pub lang: Lang,
    /// What a process of the demo is.
    #[command(subcommand)]
    pub role: Option<Role>,
}

/// What a process of the demo is.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// One of the servers.
    #[command(hide = true)]
    Server(ServerArgs),
    /// The client.
    #[command(hide = true)]
    Client(ClientArgs),
}

/// Runs the demo, or what this process is in one.
///
/// # Errors
/// A process cannot be started, or ends with an error.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    match args.role {
        Some(Role::Server(args)) => server::run(args).await,
        Some(Role::Client(args)) => client::run(args).await,
        None => show(args.calls, args.lang).await,
    }
}

async fn show(calls: u64, lang: Lang) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let dir = tempfile::Builder::new().prefix("callsign-demo-").tempdir()?;
    let url = format!("{}?drain=200ms", callsign::file::url(dir.path()));
    let lang = if lang == Lang::En { "en" } else { "zh" };

    let args =
        ["server", "--listen", "127.0.0.1:0", "--until-stdin-ends", "--registry", &url, "--lang", lang];
    let mut servers = [process(&args, Stdio::piped())?, process(&args, Stdio::piped())?];
    // They leave when this ends, and so they do when this process is killed.
    let held = servers.each_mut().map(|server| server.stdin.take());
    let calls = calls.to_string();
    let args = ["client", "--calls", &calls, "--registry", &url, "--lang", lang];
    let client = async {
        registered(&url, held.len()).await?;
        Ok::<_, Failure>(process(&args, Stdio::null())?.wait().await?)
    };
    let called = {
        let [one, two] = &mut servers;
        tokio::select! {
            called = client => called.and_then(|ended| succeeded("the client", ended)),
            ended = one.wait() => Err(unasked(ended?)),
            ended = two.wait() => Err(unasked(ended?)),
            () = signals.next() => Ok(()),
        }
    };
    drop(held);
    let left = leave(servers).await;
    called.and(left)
}

/// This program again, in another role. Killed if it is dropped.
fn process(args: &[&str], stdin: Stdio) -> Result<Child, Failure> {
    Ok(Command::new(std::env::current_exe()?).args(args).stdin(stdin).kill_on_drop(true).spawn()?)
}

/// Waits until all servers can be found.
async fn registered(url: &str, servers: usize) -> Result<(), Failure> {
    let mut watch = cli::open(url)?.watch(&"book".parse().map_err(|error| Failure::Failed(Box::new(error)))?);
    let found = async {
        while watch.snapshot().len() < servers {
            watch.changed().await?;
        }
        Ok::<_, callsign::Error>(())
    };
    match timeout(PATIENCE, found).await {
        Ok(found) => found.map_err(|error| Failure::Failed(error.into())),
        Err(_) => Err(Failure::Failed(format!("the servers did not register within {PATIENCE:?}").into())),
    }
}

/// Waits until the servers, who have been told to, have left.
async fn leave(servers: [Child; 2]) -> Result<(), Failure> {
    for mut server in servers {
        match timeout(PATIENCE, server.wait()).await {
            Ok(ended) => succeeded("a server", ended?)?,
            Err(_) => {
                return Err(Failure::Failed(format!("a server did not leave within {PATIENCE:?}").into()));
            }
        }
    }
    Ok(())
}

fn unasked(ended: ExitStatus) -> Failure {
    Failure::Failed(format!("a server ended before it was told to: {ended}").into())
}

fn succeeded(who: &str, ended: ExitStatus) -> Result<(), Failure> {
    if ended.success() { Ok(()) } else { Err(Failure::Failed(format!("{who} ended: {ended}").into())) }
}
