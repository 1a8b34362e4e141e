//! What the program can be told: [`Cli`].

use std::ffi::OsString;
use std::time::Duration;

use callsign::{Address, InstanceId, ServiceName};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::exit::CODES;

/// The environment variable that names the registry.
pub(crate) const VARIABLE: &str = "CALLSIGN_REGISTRY";

const REGISTRIES: &str = "\
Registries: file:///DIR, static:NAME=HOST:PORT,..., and, in a build with the features `consul`, `etcd`, `eureka`, `zk`
and `tls` (`full` is all of them), consul://HOST:PORT, etcd://HOST:PORT/PREFIX, eureka://HOST:PORT/eureka,
zk://HOST:PORT/PATH and the first three with +tls. A URL on the command line is seen by every user of the machine: a
password belongs in the variable or in a file that the URL names (password_file=FILE).";

const EXAMPLES: &str = "\
Examples:
  export CALLSIGN_REGISTRY=etcd://10.0.0.1:2379,10.0.0.2:2379/services
  callsign check
  callsign list
  callsign watch book
  callsign watch book --json | jq -c '[.instances[].address]'
  callsign register web 127.0.0.1:8000 -- python3 -m http.server 8000";

const LIST_AFTER: &str = "\
Exits with 1 if the registry does not answer within 5 s.

Examples:
  callsign list
  callsign list book
  callsign list book --json | jq -r '.instances[] | select(.state == \"up\") | .address'";

const WATCH_AFTER: &str = "\
On a terminal the table is drawn anew at every change. Elsewhere each change is a line:
  + ID ADDRESS     came
  - ID             went
  ~ ID WHAT        changed: `weight 1 -> 5`, `held` where only the guard against mass removal keeps it
  ! STATE          the registry cannot be read (`stale since ...: why`), or can again (`fresh`)
In an outage it keeps the last good set and goes on trying. Runs until Ctrl-C, or until nobody reads it any more.

Examples:
  callsign watch book
  callsign watch book --json | while read -r line; do ...; done";

const REGISTER_AFTER: &str = "\
With a command: starts it, registers once ADDR accepts connections, passes signals on to it and what it started, and
leaves before it ends. SIGTERM or Ctrl-C: leaves first (says that it drains, waits for the registry's drain delay,
`?drain=2s` in the URL, withdraws), then passes the signal on and waits for the command; a second one is passed on at
once. SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on at once. If the command ends by itself it is withdrawn at
once. If this program is killed the command is ended by SIGTERM, and the entry by its TTL.

Without one: stays registered until SIGTERM or Ctrl-C.

What the registry refuses for want of a right or a password is tried again, so that it can be mended there.";

const REGISTER_EXAMPLES: &str = "\
Examples:
  callsign register web 127.0.0.1:8000 -- python3 -m http.server 8000
  callsign register web 10.0.0.7:8080 --zone eu-1 --weight 5 --meta team=shop --wait 2m -- java -jar shop.jar
  callsign register database 10.0.0.9:5432 --id primary";

const DEREGISTER_AFTER: &str = "\
For what was left behind. An owner that is alive registers again.

Example:
  callsign deregister book 10.0.0.1:50051";

const CHECK_AFTER: &str = "\
Writes an entry that nobody takes for an instance, and removes it. Exits with 1 if something is refused.

Examples:
  callsign check
  callsign check --json | jq .ok";

/// Looks into service registries, and registers any program in them.
#[derive(Debug, Parser)]
#[command(name = "callsign", version, after_help = format!("{REGISTRIES}\n\n{CODES}\n\n{EXAMPLES}"))]
pub(crate) struct Cli {
    /// The registry's URL [default: a directory of this user]
    #[arg(long, global = true, value_name = "URL", env = VARIABLE, hide_env_values = true)]
    pub(crate) registry: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Watch(WatchArgs),
    Register(RegisterArgs),
    Deregister(DeregisterArgs),
    Check(CheckArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Shows the services, or the instances of one
#[derive(Debug, Args)]
#[command(after_help = LIST_AFTER)]
pub(crate) struct ListArgs {
    /// The service whose instances to show
    pub(crate) service: Option<ServiceName>,
    /// One JSON object a line, for each service
    #[arg(long)]
    pub(crate) json: bool,
}

/// Follows the instances of a service
#[derive(Debug, Args)]
#[command(after_help = WATCH_AFTER)]
pub(crate) struct WatchArgs {
    /// The service
    pub(crate) service: ServiceName,
    /// One JSON object a line, for the present set and at every change, at most ten a second
    #[arg(long)]
    pub(crate) json: bool,
}

/// Registers an address, or a command that serves at it
#[derive(Debug, Args)]
#[command(after_help = format!("{REGISTER_AFTER}\n\n{CODES}\n\n{REGISTER_EXAMPLES}"))]
pub(crate) struct RegisterArgs {
    /// The name to register under
    pub(crate) service: ServiceName,
    /// Where clients reach it.
    #[arg(
        value_name = "ADDR",
        help = "Where clients reach it, as 10.0.0.1:8000, [::1]:8000 or web.example.org:8000"
    )]
    pub(crate) address: Address,
    /// What tells it from the others of its name [default: its address]
    #[arg(long)]
    pub(crate) id: Option<InstanceId>,
    /// Its share relative to the others
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) weight: u32,
    /// Where it runs, such as a data centre
    #[arg(long, value_name = "NAME")]
    pub(crate) zone: Option<String>,
    /// The version of what runs
    #[arg(long, value_name = "TEXT")]
    pub(crate) version: Option<String>,
    /// Metadata; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) meta: Vec<(String, String)>,
    /// How long the entry outlives a crash, as 5s; instead of `ttl` in the URL
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// How long ADDR may take to accept connections [default: 30s with a command; without one it is not looked at]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// The command to start, behind `--`
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Removes an entry, whoever owns it
#[derive(Debug, Args)]
#[command(after_help = DEREGISTER_AFTER)]
pub(crate) struct DeregisterArgs {
    /// The service
    pub(crate) service: ServiceName,
    /// The instance's id, as `list` shows it
    pub(crate) id: InstanceId,
}

/// Says whether the registry can be reached, read and written, and what exactly is refused
#[derive(Debug, Args)]
#[command(after_help = CHECK_AFTER)]
pub(crate) struct CheckArgs {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  callsign completions bash >/etc/bash_completion.d/callsign")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// Prints the man page, of the program or of a subcommand
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  callsign man register | man -l -")]
pub(crate) struct ManArgs {
    /// The subcommand
    pub(crate) command: Option<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) => Err("there is no key before its '=': write KEY=VALUE, as team=library".to_owned()),
        None => Err("it has no '=': write KEY=VALUE, as team=library".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: write a time as 500ms, 10s or 2m"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_agree_with_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_is_taken_as_it_is() {
        let cli = Cli::parse_from([
            "callsign",
            "register",
            "web",
            "127.0.0.1:8000",
            "--meta",
            "a=b=c",
            "--registry",
            "file:///x",
            "--",
            "serve",
            "--json",
            "--weight",
        ]);
        assert_eq!(cli.registry.as_deref(), Some("file:///x"));
        let Command::Register(args) = cli.command else { panic!("{:?}", cli.command) };
        assert_eq!(args.command, ["serve", "--json", "--weight"]);
        assert_eq!(args.meta, [("a".to_owned(), "b=c".to_owned())]);
    }

    #[test]
    fn what_is_refused_is_named() {
        for (more, says) in [
            (&["web", "127.0.0.1:8000", "--meta", "team"][..], "no '='"),
            (&["web", "127.0.0.1:8000", "--meta", "=x"], "no key"),
            (&["web", "127.0.0.1:8000", "--ttl", "5"], "500ms, 10s or 2m"),
            (&["web", "127.0.0.1:8000", "--weight", "1.5"], "--weight"),
            (&["web", "127.0.0.1:8000", "--id", ""], "0 bytes"),
            (&["web", "127.0.0.1"], "no port"),
            (&["a/b", "127.0.0.1:8000"], "'/'"),
            (&["web", "127.0.0.1:8000", "serve"], "[-- <COMMAND>...]"),
        ] {
            let error = Cli::try_parse_from([&["callsign", "register"], more].concat()).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(says), "{more:?}: {error}");
        }
    }

    #[test]
    fn no_secret_of_the_environment_is_shown() {
        let help = Cli::command().render_long_help().to_string();
        assert!(
            help.contains(VARIABLE) && help.contains("Exit codes:") && help.contains("Examples:"),
            "{help}"
        );
        assert!(
            !help.contains("CALLSIGN_REGISTRY=\n") && !help.contains("[env: CALLSIGN_REGISTRY="),
            "{help}"
        );
    }
}
