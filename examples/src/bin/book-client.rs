//! `book-client`: see `book-client --help`.

use std::process::ExitCode;

use book::client::{self, ClientArgs};
use clap::Parser;

const AFTER: &str = "\
Of each call it prints who answered, and what. A call that fails is reported on stderr, and the next one is made.

Exit codes: 0 all calls were answered; 1 one was not; 2 bad input, or no list from the registry within 5 s.

Examples:
  book-client
  book-client --calls 100 --interval 50 --policy ewma --timeout 2000 --lang en
  book-client --registry 'etcd://127.0.0.1:2379/services?format=gokit'";

/// Calls the book servers that are registered.
#[derive(Debug, Parser)]
#[command(name = "book-client", version, after_help = AFTER)]
struct Cli {
    #[command(flatten)]
    args: ClientArgs,
}

fn main() -> ExitCode {
    book::cli::main(async |cli: Cli| client::run(cli.args).await)
}
