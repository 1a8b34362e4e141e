//! `book-demo`: see `book-demo --help`.

use std::process::ExitCode;

use book::demo::{self, DemoArgs};
use clap::Parser;

const AFTER: &str = "\
Two servers register in a temporary directory, a client finds them there and calls them in turn, the servers leave,
and the directory is removed. Each is a process of its own.

Exit codes: 0 all calls were answered; 1 something failed; 2 bad input.

Examples:
  book-demo
  book-demo --calls 20 --lang en";

/// Shows two book servers and a client that find each other.
#[derive(Debug, Parser)]
#[command(name = "book-demo", version, after_help = AFTER)]
struct Cli {
    #[command(flatten)]
    args: DemoArgs,
}

fn main() -> ExitCode {
    book::cli::main(async |cli: Cli| demo::run(cli.args).await)
}
