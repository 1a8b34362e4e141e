//! [`Contestant`]: a transport beneath the generated client.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use callsign_bench_figures::{Result, process_time, quantile};
use callsign_core::{InstanceWatch, RegistryUrl, fixed};
use callsign_lb::RoundRobin;
use callsign_lb::grpc::Channel;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError;
use tonic::transport::Endpoint;

use crate::proto::Message;
use crate::proto::bench_client::BenchClient;
use crate::raw::Raw;

pub(crate) const RAW: &str = "raw hyper";
/// Bytes of a message.
const SIZE: usize = 100;
/// Messages that are under way on a stream.
const WINDOW: usize = 64;

type Run<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// What some calls, one after the other, took: microseconds.
pub(crate) struct Calls {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// On a processor, of all threads of the client, each.
    pub(crate) work: f64,
}

pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// So many calls, one after the other.
    pub(crate) calls: Box<dyn Fn(usize) -> Run<Calls>>,
    /// So many tasks that call for a while: how many calls there were.
    pub(crate) tasks: Box<dyn Fn(usize, Duration) -> Run<usize>>,
    /// So many messages on one stream, each of which comes back.
    pub(crate) stream: Box<dyn Fn(usize) -> Run<()>>,
}

impl Contestant {
    fn new<T>(name: &'static str, transport: T) -> Self
    where
        T: GrpcService<Body> + Clone + Send + Sync + 'static,
        T::Future: Send,
        T::Error: Into<StdError> + Send,
        T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
    {
        let client = BenchClient::new(transport);
        let (caller, sharer, streamer) = (client.clone(), client.clone(), client);
        Self {
            name,
            calls: Box::new(move |count| Box::pin(calls(caller.clone(), count))),
            tasks: Box::new(move |tasks, time| Box::pin(share(sharer.clone(), tasks, time))),
            stream: Box::new(move |messages| Box::pin(stream(streamer.clone(), messages))),
        }
    }
}

fn message() -> Message {
    Message { payload: vec![7; SIZE] }
}

async fn calls<T>(mut client: BenchClient<T>, count: usize) -> Result<Calls>
where
    T: GrpcService<Body> + Send,
    T::Future: Send,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let mut times = Vec::with_capacity(count);
    let worked = process_time();
    for _ in 0..count {
        let begun = Instant::now();
        client.call(message()).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    let work = (process_time() - worked).as_secs_f64() * 1e6 / count as f64;
    Ok(Calls { p50: quantile(&times, 0.5), p99: quantile(&times, 0.99), work })
}

async fn share<T>(client: BenchClient<T>, tasks: usize, time: Duration) -> Result<usize>
where
    T: GrpcService<Body> + Clone + Send + 'static,
    T::Future: Send,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let until = Instant::now() + time;
    let mut all = JoinSet::new();
    for _ in 0..tasks {
        let mut client = client.clone();
        all.spawn(async move {
            let mut count = 0;
            while Instant::now() < until {
                client.call(message()).await?;
                count += 1;
            }
            Ok::<_, tonic::Status>(count)
        });
    }
    let mut sum = 0;
    while let Some(count) = all.join_next().await {
        sum += count??;
    }
    Ok(sum)
}

async fn stream<T>(mut client: BenchClient<T>, messages: usize) -> Result<()>
where
    T: GrpcService<Body> + Send,
    T::Future: Send,
    T::Error: Into<StdError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let (send, sent) = mpsc::channel(WINDOW);
    for _ in 0..WINDOW {
        send.try_send(message())?;
    }
    let mut answers = client.stream(ReceiverStream::new(sent)).await?.into_inner();
    for _ in 0..messages {
        answers.message().await?.ok_or("the stream has ended")?;
        send.send(message()).await?;
    }
    Ok(())
}

/// All of them, connected, with their tasks on the current runtime.
pub(crate) async fn all(server: SocketAddr) -> Result<Vec<Contestant>> {
    let endpoint = || Endpoint::try_from(format!("http://{server}"));
    let registry = fixed::open(&RegistryUrl::parse(&format!("static:bench={server}"))?)?;
    let watch: InstanceWatch = registry.watch(&"bench".parse()?);
    let plain = Channel::builder(watch.clone()).build();
    let turns = Channel::builder(watch.clone()).policy(RoundRobin::default()).build();
    let adaptor = Channel::builder(watch).endpoint(|_, endpoint| endpoint).build();
    for channel in [&plain, &turns, &adaptor] {
        channel.endpoints().wait_for(|set| !set.is_empty()).await;
    }
    Ok(vec![
        Contestant::new(RAW, Raw::connect(server).await?),
        Contestant::new("tonic Channel", endpoint()?.connect().await?),
        Contestant::new(
            "tonic balance_list",
            tonic::transport::Channel::balance_list([endpoint()?].into_iter()),
        ),
        Contestant::new("callsign Channel", plain),
        Contestant::new("callsign Channel, round robin", turns),
        Contestant::new("callsign Channel on tonic's", adaptor),
    ])
}
