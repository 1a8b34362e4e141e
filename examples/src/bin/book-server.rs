//! `book-server`: see `book-server --help`.

use std::process::ExitCode;

use book::server::{self, ServerArgs};
use clap::Parser;

const AFTER: &str = "\
It registers once it accepts calls, keeps trying while the registry cannot be reached, and stays registered until
SIGTERM or Ctrl-C. Then it deregisters, serves on for the registry's drain delay (`?drain=2s` in the URL), finishes
what is under way, and ends. A second signal ends it at once.

Exit codes: 0 told to end; 1 failed; 2 bad input, or the registry refuses for good.

Examples:
  book-server --listen 127.0.0.1:50051
  book-server --listen 127.0.0.1:0 --registry file:///tmp/books
  book-server --listen 0.0.0.0:50051 --advertise 10.0.0.7:50051 \\
      --registry 'etcd://127.0.0.1:2379/services?format=gokit'";

/// Serves books, and registers so that clients find it.
#[derive(Debug, Parser)]
#[command(name = "book-server", version, after_help = AFTER)]
struct Cli {
    #[command(flatten)]
    args: ServerArgs,
}

fn main() -> ExitCode {
    book::cli::main(async |cli: Cli| server::run(cli.args).await)
}
