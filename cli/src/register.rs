//! `register`: an address, or a command that serves at it, for as long as this program runs.

use std::io;
use std::time::Duration;

use callsign::{ErrorKind, Instance, Registration, Registry, Status};
use tokio::time::timeout;

use crate::accepts;
use crate::args::RegisterArgs;
use crate::command::Command;
use crate::exit::{Failure, OK, fix};
use crate::output::note;
use crate::signals::{Signal, Signals, Told};

/// How long a command's port may take to accept.
const WAIT: Duration = Duration::from_secs(30);
/// How long a registry that does not answer may keep us once there is nothing left to keep up.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long a command that is not wanted any more has, before it is killed.
const FINISH: Duration = Duration::from_secs(10);

/// Checks everything that was given before anything is started.
pub(crate) fn instance(args: &RegisterArgs) -> Result<Instance, Failure> {
    let mut instance = Instance::new(args.service.clone(), args.address.clone())?.with_weight(args.weight);
    if let Some(id) = &args.id {
        instance = instance.with_id(id.as_str())?;
    }
    if let Some(zone) = &args.zone {
        instance = instance.with_zone(zone).map_err(|error| error.context("--zone"))?;
    }
    if let Some(version) = &args.version {
        instance = instance.with_version(version).map_err(|error| error.context("--version"))?;
    }
    for (key, value) in &args.meta {
        if instance.metadata().contains_key(key) {
            return Err(Failure::input(format!("--meta has the key {key:?} twice: once is the rule")));
        }
        instance = instance.with_metadata(key, value).map_err(|error| error.context("--meta"))?;
    }
    Ok(instance)
}

pub(crate) async fn run(args: &RegisterArgs, instance: Instance, registry: &Registry) -> Result<u8, Failure> {
    let mut signals = Signals::listen(!args.command.is_empty())?;
    if args.command.is_empty() {
        return alone(args, instance, registry, &mut signals).await;
    }
    if accepts::now(&args.address).await.is_ok() {
        note(format_args!(
            "something accepts connections at {} already, before the command has started",
            args.address
        ));
    }
    let mut command = Command::start(&args.command)?;
    if let Some(code) = until_it_accepts(args, &mut command, &mut signals).await? {
        return Ok(code);
    }
    let mut registration = registry.keep_registered(instance);
    let over = {
        let mut refused = std::pin::pin!(follow(registry, &mut registration, true));
        loop {
            tokio::select! {
                code = command.ended() => break Over::Ended(code),
                told = signals.next() => match told {
                    Told::End(signal) => break Over::Told(signal),
                    Told::Pass(signal) => command.pass(signal),
                },
                refused = &mut refused => break Over::Refused(refused),
            }
        }
    };
    match over {
        Over::Ended(code) => {
            note(format_args!("{} has ended with exit code {code}", command.name()));
            withdraw(registration, registry).await;
            Ok(code)
        }
        Over::Told(signal) => Ok(leave(registration, registry, command, &mut signals, signal).await),
        Over::Refused(failure) => {
            withdraw(registration, registry).await;
            stop(&mut command).await;
            Err(failure)
        }
    }
}

/// Why a command is registered no longer.
enum Over {
    Ended(u8),
    Told(Signal),
    Refused(Failure),
}

/// Without a command: registered until told to end.
async fn alone(
    args: &RegisterArgs,
    instance: Instance,
    registry: &Registry,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    if let Some(wait) = args.wait {
        tokio::select! {
            _ = signals.end() => return Ok(OK),
            accepted = accepts::within(&args.address, wait) => {
                accepted.map_err(|error| Failure::input(never(args, wait, &error)))?;
            }
        }
    }
    let mut registration = registry.keep_registered(instance);
    tokio::select! {
        _ = signals.end() => {}
        refused = follow(registry, &mut registration, false) => {
            withdraw(registration, registry).await;
            return Err(refused);
        }
    }
    note(format_args!("leaving {}", registration.id()));
    tokio::select! {
        left = registration.deregister() => left?,
        _ = signals.end() => {
            note("told to end a second time: leaving at once");
            close(registry).await;
        }
    }
    Ok(OK)
}

/// Waits for the command's port. Its exit code, if there is nothing to register.
async fn until_it_accepts(
    args: &RegisterArgs,
    command: &mut Command,
    signals: &mut Signals,
) -> Result<Option<u8>, Failure> {
    let wait = args.wait.unwrap_or(WAIT);
    let mut accepted = std::pin::pin!(accepts::within(&args.address, wait));
    loop {
        tokio::select! {
            // First: that it has ended is worth more than that something accepts.
            biased;
            code = command.ended() => {
                note(format_args!(
                    "{} has ended with exit code {code} before {} accepted a connection: nothing was registered",
                    command.name(),
                    args.address
                ));
                return Ok(Some(code));
            }
            told = signals.next() => match told {
                Told::Pass(signal) => command.pass(signal),
                Told::End(signal) => return Ok(Some(end(command, signals, signal).await)),
            },
            accepted = &mut accepted => {
                let Err(error) = accepted else { return Ok(None) };
                stop(command).await;
                return Err(Failure::input(never(args, wait, &error)));
            }
        }
    }
}

fn never(args: &RegisterArgs, wait: Duration, error: &io::Error) -> String {
    format!(
        "{} did not accept a connection within {}: {error}: what is registered must be reachable, so give the address \
         that is served at, or more time with --wait",
        args.address,
        humantime::format_duration(wait)
    )
}

/// Passes the word to end on, and every other signal that follows, and waits.
async fn end(command: &mut Command, signals: &mut Signals, signal: Signal) -> u8 {
    command.pass(signal);
    loop {
        tokio::select! {
            code = command.ended() => return code,
            Told::End(signal) | Told::Pass(signal) = signals.next() => command.pass(signal),
        }
    }
}

/// Leaves in two phases, then lets the command end. A second word to end goes to it at once.
async fn leave(
    registration: Registration,
    registry: &Registry,
    mut command: Command,
    signals: &mut Signals,
    signal: Signal,
) -> u8 {
    note(format_args!("leaving {}", registration.id()));
    let mut leaving = std::pin::pin!(registration.deregister());
    let mut next = signal;
    let ended = loop {
        tokio::select! {
            left = &mut leaving => {
                if let Err(error) = left {
                    note(error.chain());
                }
                break None;
            }
            code = command.ended() => break Some(code),
            told = signals.next() => match told {
                Told::Pass(signal) => command.pass(signal),
                Told::End(second) => {
                    note("told to end a second time: no longer waiting");
                    next = second;
                    break None;
                }
            },
        }
    };
    let code = match ended {
        Some(code) => code,
        None => end(&mut command, signals, next).await,
    };
    // Nothing is left to do, unless it was cut short.
    close(registry).await;
    code
}

/// Tells how the registration goes, for as long as it goes. What `serves` goes on if another takes its id.
async fn follow(registry: &Registry, registration: &mut Registration, serves: bool) -> Failure {
    let id = registration.id().to_string();
    let (mut ever, mut said) = (false, String::new());
    loop {
        let line = match registration.status_changed().await {
            Status::Registered => {
                (ever, said) = (true, String::new());
                note(format_args!("registered {}/{id} in {registry:?}", registration.service()));
                None
            }
            Status::Pending { error: Some(error) } if !ever && is_hopeless(error.kind()) => {
                return error.into();
            }
            Status::Superseded => {
                let service = registration.service();
                let taken = format!("{service}/{id} was registered by somebody else, who has it now");
                if !serves {
                    return Failure::Failed(taken.into());
                }
                note(format_args!("{taken}: the command serves on, and is registered no longer"));
                return std::future::pending().await;
            }
            Status::Released { error: None } => return Failure::Failed("the registration has ended".into()),
            Status::Released { error: Some(error) } => return error.into(),
            status => status.error().map(|error| {
                let what = if ever { "keeps trying to stay registered" } else { "waits to be registered" };
                let fix = fix(error).map_or_else(String::new, |fix| format!(": {fix}"));
                format!("{id} {what} in {registry:?}: {}{fix}", error.chain())
            }),
        };
        // The same reason is said once, however often it is met.
        if let Some(line) = line.filter(|line| *line != said) {
            note(&line);
            said = line;
        }
    }
}

/// Whether waiting mends nothing. A right or a password may be mended at the registry, while we wait.
fn is_hopeless(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Conflict)
}

/// Withdraws what nobody serves any more: announced, so that watchers do not hold on to it, and without delay.
async fn withdraw(registration: Registration, registry: &Registry) {
    if registration.status().is_registered() {
        // If it cannot be said in time it is withdrawn all the same.
        let _ = timeout(AT_ONCE / 2, registration.drain()).await;
    }
    drop(registration);
    close(registry).await;
}

async fn close(registry: &Registry) {
    if let Err(error) = registry.close(AT_ONCE).await {
        note(error.chain());
    }
}

/// Ends a command that is not wanted any more.
async fn stop(command: &mut Command) {
    #[cfg(unix)]
    command.pass(Signal::TERM);
    #[cfg(not(unix))]
    command.pass(Signal::INT);
    if timeout(FINISH, command.ended()).await.is_err() {
        note(format_args!("{} does not end within {FINISH:?} and is killed", command.name()));
        #[cfg(unix)]
        command.pass(Signal::KILL);
        let _: u8 = command.ended().await;
    }
}
