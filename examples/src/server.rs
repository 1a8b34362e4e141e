//! The server: serves, then registers, and leaves in two phases.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use callsign::{Address, Instance, Registration, Registry, ServiceName, Status};
use clap::Args;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::cli::{self, BoxError, Failure, Signals};
use crate::defaults;
use crate::proto::book_service_server::BookServiceServer;
use crate::service::Books;
use crate::text::Lang;

/// How long calls that are under way may take to end, once nobody is sent here any more.
const FINISH: Duration = Duration::from_secs(10);

/// What a server is told.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// What to listen on.
    #[arg(
        long,
        value_name = "ADDR",
        help = "What to listen on, as 127.0.0.1:50051, [::1]:50051 or 0.0.0.0:50051; port 0 takes a free one"
    )]
    pub listen: Listen,
    /// The address that clients reach.
    #[arg(
        long,
        value_name = "ADDR",
        help = "The address that clients reach, if it is another one; needed with 0.0.0.0 and [::]"
    )]
    pub advertise: Option<Address>,
    /// The registry
    #[arg(long, value_name = "URL", default_value_t = defaults::registry_url())]
    pub registry: String,
    /// The name to register under
    #[arg(long, value_name = "NAME", default_value = "book")]
    pub service: ServiceName,
    /// What tells this server from the others of its name [default: its address]
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Its share relative to the others
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub weight: u32,
    /// Where it runs, such as a data centre
    #[arg(long, value_name = "NAME")]
    pub zone: Option<String>,
    /// The language of what it says
    #[arg(long, value_enum, default_value_t)]
    pub lang: Lang,
    /// Also leave when stdin ends, so that no server outlives whoever started it
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

/// What to listen on: an address whose port may be 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    host: String,
    port: u16,
}

impl FromStr for Listen {
    type Err = callsign::Error;

    fn from_str(text: &str) -> Result<Self, callsign::Error> {
        // Otherwise an address as any other, by the same rules.
        let (address, free): (Address, bool) = match text.strip_suffix(":0") {
            Some(host) => (format!("{host}:1").parse()?, true),
            None => (text.parse()?, false),
        };
        Ok(Self { host: address.host().to_owned(), port: if free { 0 } else { address.port() } })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Listen {
    fn is_unspecified(&self) -> bool {
        Address::new(&self.host, 1).is_ok_and(|address| address.is_unspecified())
    }
}

/// Serves until it is told to end.
///
/// # Errors
/// Bad input, an address that cannot be listened on, a registry that refuses for good; a second signal.
pub async fn run(args: ServerArgs) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    if args.listen.is_unspecified() && args.advertise.is_none() {
        return Err(Failure::Input(
            format!(
                "--listen {} takes calls on every address of this machine, and clients need one of them: add \
                 --advertise HOST:PORT",
                args.listen
            )
            .into(),
        ));
    }
    let registry = cli::open(&args.registry)?;
    let listener = TcpListener::bind((&*args.listen.host, args.listen.port)).await.map_err(|error| {
        Failure::Failed(
            callsign::Error::new(callsign::ErrorKind::Other, format!("cannot listen on {}", args.listen))
                .with_source(error)
                .into(),
        )
    })?;
    let port = listener.local_addr()?.port();
    let listening = Listen { host: args.listen.host.clone(), port };
    let instance = instance(&args, port).map_err(|error| Failure::Input(error.into()))?;
    cli::say(args.lang.listening(&listening.to_string()))?;

    let (stop, stopped) = oneshot::channel::<()>();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = BookServiceServer::new(Books);
    let serving = Server::builder().serve_with_incoming_shutdown(service, incoming, async {
        // Dropped or sent, it means the same.
        let _ = stopped.await;
    });
    tokio::pin!(serving);
    // It accepts from here on, and only now says so to the registry.
    let left = tokio::select! {
        served = &mut serving => return Err(Failure::Failed(match served {
            Ok(()) => "the server ended by itself".into(),
            Err(error) => error.into(),
        })),
        left = stay_registered(&args, &registry, instance, &mut signals) => left,
    };
    let Left::InOrder(left) = left else { return Err(at_once()) };
    drop(stop);
    tokio::select! {
        served = tokio::time::timeout(FINISH, &mut serving) => match served {
            Ok(served) => served.map_err(|error| Failure::Failed(error.into()))?,
            Err(_) => cli::warn(format_args!("calls still under way after {FINISH:?} are broken off")),
        },
        () = signals.next() => return Err(at_once()),
    }
    left?;
    cli::say(args.lang.stopped())?;
    Ok(())
}

fn instance(args: &ServerArgs, port: u16) -> Result<Instance, callsign::Error> {
    let address = match &args.advertise {
        Some(address) => address.clone(),
        None => Address::new(&args.listen.host, port.into())?,
    };
    let mut instance = Instance::new(&args.service, address)?.with_protocol("grpc")?.with_weight(args.weight);
    if let Some(id) = &args.id {
        instance = instance.with_id(id)?;
    }
    if let Some(zone) = &args.zone {
        instance = instance.with_zone(zone)?;
    }
    Ok(instance)
}

/// How the registration ended.
enum Left {
    InOrder(Result<(), Failure>),
    /// Told to end a second time.
    AtOnce,
}

/// Registered from here until told to end, and served on until everybody had the time to hear of it.
async fn stay_registered(
    args: &ServerArgs,
    registry: &Registry,
    instance: Instance,
    signals: &mut Signals,
) -> Left {
    let id = instance.id().to_string();
    let mut registration = registry.keep_registered(instance);
    let refused = tokio::select! {
        () = signals.next() => None,
        () = stdin_ends(), if args.until_stdin_ends => None,
        refused = follow(args, registry, &mut registration) => Some(refused),
    };
    if let Some(refused) = refused {
        // Nothing was published: it is gone as soon as it is dropped.
        return Left::InOrder(Err(refused));
    }
    if let Err(error) = cli::say(args.lang.leaving(&id)) {
        return Left::InOrder(Err(error.into()));
    }
    tokio::select! {
        left = registration.deregister() => Left::InOrder(left.map_err(|error| Failure::Failed(error.into()))),
        () = signals.next() => Left::AtOnce,
    }
}

/// Tells how the registration goes, for as long as it goes.
async fn follow(args: &ServerArgs, registry: &Registry, registration: &mut Registration) -> Failure {
    let id = registration.id().to_string();
    let (mut ever, mut said) = (false, String::new());
    loop {
        let line = match registration.status_changed().await {
            Status::Registered => {
                ever = true;
                said.clear();
                if let Err(error) = cli::say(args.lang.registered(&id, &format!("{registry:?}"))) {
                    return error.into();
                }
                None
            }
            Status::Pending { error: Some(error) } if !ever && error.is_permanent() => {
                return Failure::Input(error.into());
            }
            Status::Superseded => {
                Some(format!("{id} was registered by another server: clients no longer come here"))
            }
            Status::Released { error: None } => return Failure::Failed("the registration has ended".into()),
            Status::Released { error: Some(error) } => return Failure::Failed(error.into()),
            status => status.error().map(|error| {
                let what = if ever { "keeps trying to stay registered in" } else { "waits to register in" };
                format!("{id} {what} {registry:?}: {}", error.chain())
            }),
        };
        // The same reason is said once, however often it is met.
        if let Some(line) = line.filter(|line| *line != said) {
            cli::warn(&line);
            said = line;
        }
    }
}

async fn stdin_ends() {
    let mut stdin = tokio::io::stdin();
    let mut some = [0; 64];
    while stdin.read(&mut some).await.is_ok_and(|read| read > 0) {}
}

fn at_once() -> Failure {
    Failure::Failed(BoxError::from("told to end a second time: ended without waiting"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_takes_port_0_and_nothing_else_that_is_no_address() {
        for text in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:50051", "[::]:0", "localhost:1"] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.to_string(), text);
            assert_eq!(listen.is_unspecified(), text.starts_with("0.") || text.starts_with("[::]"));
        }
        for (text, says) in
            [("127.0.0.1", "no port"), ("127.0.0.1:70000", "70000"), ("::1:0", "brackets"), (":0", "empty")]
        {
            let error = text.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
