//! The client: calls whoever is registered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callsign::grpc::Channel;
use callsign::{Instance, InstanceWatch, NamedPolicy, Registry, ServiceName};
use clap::Args;
use tokio::time::timeout;
use tonic::{Extensions, Status};

use crate::cli::{self, Failure, Signals};
use crate::defaults;
use crate::proto::book_service_client::BookServiceClient;
use crate::proto::{BookInfo, BookInfoParams, BookListParams};
use crate::text::Lang;

/// How long the registry may take to say who is registered.
const FIRST_LIST: Duration = Duration::from_secs(5);
/// How long the first call waits for connections to all who are, so that it has the choice.
const FIRST_CALL: Duration = Duration::from_secs(1);

/// What a client is told.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// The registry
    #[arg(long, value_name = "URL", default_value_t = defaults::registry_url())]
    pub registry: String,
    /// The name that the servers are registered under
    #[arg(long, value_name = "NAME", default_value = "book")]
    pub service: ServiceName,
    /// How many calls to make; 0 for no end, until Ctrl-C
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub calls: u64,
    /// Milliseconds between calls
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub interval: u64,
    /// How many milliseconds a call may take
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    /// Which server a call goes to.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "round_robin",
        help = format!("Which server a call goes to: {}", NamedPolicy::NAMES.join(", "))
    )]
    pub policy: NamedPolicy,
    /// The language of what it says
    #[arg(long, value_enum, default_value_t)]
    pub lang: Lang,
}

/// What came of all calls.
#[derive(Debug, Default)]
struct Summary {
    calls: u64,
    failed: u64,
    answered: BTreeMap<String, u64>,
}

/// Makes the calls.
///
/// # Errors
/// Bad input, no list from the registry within 5 s, or a call that failed.
pub async fn run(args: ClientArgs) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let registry = cli::open(&args.registry)?;
    let mut watch = registry.watch(&args.service);
    let timeout = Duration::from_millis(args.timeout);
    let channel = Channel::builder(watch.clone()).timeout(timeout).policy(args.policy).build();
    let mut summary = Summary::default();
    tokio::select! {
        done = call_all(&args, &registry, &mut watch, channel, &mut summary) => done?,
        () = signals.next() => {}
    }
    cli::say(args.lang.summary(summary.calls, summary.failed))?;
    for (address, calls) in &summary.answered {
        cli::say(args.lang.summary_of(address, *calls))?;
    }
    if summary.failed > 0 { Err(Failure::Said) } else { Ok(()) }
}

async fn call_all(
    args: &ClientArgs,
    registry: &Registry,
    watch: &mut InstanceWatch,
    channel: Channel,
    summary: &mut Summary,
) -> Result<(), Failure> {
    let instances = first_list(args, registry, watch).await?;
    // Those that cannot be reached are not waited for any longer; the others are called all the same.
    let _ = timeout(FIRST_CALL, channel.endpoints().wait_for(|ready| ready.len() >= instances)).await;
    let mut books = BookServiceClient::new(channel);
    loop {
        // In pairs, so that of two servers that take turns both are asked for both.
        let called = match summary.calls / 2 % 2 {
            0 => info(&mut books, args.lang).await,
            _ => list(&mut books, args.lang).await,
        };
        summary.calls += 1;
        match called {
            Ok((address, lines)) => {
                cli::say(args.lang.request_to(&address))?;
                cli::say(lines.join("\n"))?;
                *summary.answered.entry(address).or_default() += 1;
            }
            Err(status) => {
                summary.failed += 1;
                cli::warn(format_args!(
                    "error: call {}: {}: {}",
                    summary.calls,
                    status.code(),
                    status.message()
                ));
            }
        }
        if summary.calls == args.calls {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(args.interval)).await;
    }
}

/// Waits for the registry to say who is registered, and returns how many are.
async fn first_list(
    args: &ClientArgs,
    registry: &Registry,
    watch: &mut InstanceWatch,
) -> Result<usize, Failure> {
    let listed = async {
        let mut snapshot = watch.snapshot();
        while snapshot.freshness().is_pending() {
            if let Some(error) = snapshot.freshness().error().filter(|error| error.is_permanent()) {
                return Err(Failure::Input(error.clone().into()));
            }
            snapshot = watch.changed().await.map_err(|closed| Failure::Failed(closed.into()))?;
        }
        Ok(snapshot.len())
    };
    if let Ok(listed) = timeout(FIRST_LIST, listed).await {
        return listed;
    }
    let what = format!("no list of {} from {registry:?} within {FIRST_LIST:?}", args.service);
    Err(Failure::Input(match watch.snapshot().freshness().error() {
        Some(error) => format!("{what}: {}", error.chain()).into(),
        None => what.into(),
    }))
}

/// The address that answered, and what it said.
type Answer = Result<(String, Vec<String>), Status>;

async fn info(books: &mut BookServiceClient<Channel>, lang: Lang) -> Answer {
    let response = books.get_book_info(BookInfoParams { book_id: 1 }).await?;
    let address = answered_by(response.extensions());
    Ok((address, vec![lang.book_info(), book(lang, response.get_ref())]))
}

async fn list(books: &mut BookServiceClient<Channel>, lang: Lang) -> Answer {
    let response = books.get_book_list(BookListParams { page: 1, limit: 10 }).await?;
    let address = answered_by(response.extensions());
    let lines = response.get_ref().book_list.iter().map(|one| book(lang, one));
    Ok((address, [lang.book_list()].into_iter().chain(lines).collect()))
}

fn book(lang: Lang, book: &BookInfo) -> String {
    lang.book(book.book_id, &book.book_name)
}

/// The channel leaves the instance that answered in the response.
fn answered_by(extensions: &Extensions) -> String {
    extensions
        .get::<Arc<Instance>>()
        .map_or_else(|| "?".to_owned(), |instance| instance.address().to_string())
}
