//! `callsign`: looks into service registries, and registers any program in them. See `callsign --help`.

mod accepts;
mod args;
mod check;
mod command;
mod diff;
mod escape;
mod exit;
mod guard;
mod json;
mod list;
mod live;
mod open;
mod output;
mod pages;
mod register;
mod signals;
mod table;
#[cfg(test)]
mod testing;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use args::{Cli, Command};
use exit::Failure;

fn main() -> ExitCode {
    if guard::is_one() {
        return ExitCode::SUCCESS;
    }
    // Ends with exit code 2 and the reason if the arguments are wrong.
    let cli = Cli::parse();
    let done = tokio::runtime::Builder::new_multi_thread()
        // One for the registry, so that a reader of stdout that is slow holds up nothing else.
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| {
            let done = runtime.block_on(run(cli));
            runtime.shutdown_timeout(Duration::from_millis(100));
            done
        });
    ExitCode::from(done.unwrap_or_else(|failure| {
        output::report(&failure);
        failure.code()
    }))
}

async fn run(cli: Cli) -> Result<u8, Failure> {
    let url = cli.registry.as_deref();
    match cli.command {
        Command::List(args) => list::run(&args, &open::open(url, None)?).await,
        Command::Watch(args) => watch::run(&args, &open::open(url, None)?).await,
        Command::Register(args) => {
            let instance = register::instance(&args)?;
            register::run(&args, instance, &open::open(url, args.ttl)?).await
        }
        Command::Deregister(args) => check::deregister(&args, &open::open(url, None)?).await,
        Command::Check(args) => check::run(&args, &open::open(url, None)?).await,
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
    }
}
