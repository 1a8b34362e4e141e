//! [`NativeTransport`]: the HTTP/2 connections of `h2`, with nothing between the caller and them but counters.
//!
//! Beneath one [`NativeConnection`] there are the connections to one instance. They are opened as they are needed, and a
//! call that they have no place for waits in a bounded queue. A call needs no task but the caller's and the connection's: the
//! caller puts its request on the connection, and takes its answer from there. What ends and what never left is told as soon
//! as it is known: a connection that closes or is told to go away takes no more calls from that moment.
//!
//! `h2` and not hyper's client on top of it, which has a task for each call and one between the callers and the connection:
//! what is in there when the server goes away is not known to have been sent or not.

mod answer;
mod dial;
mod driver;
mod exchange;
mod keepalive;
mod keeper;
mod lane;
mod pool;
mod upload;

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use callsign_core::{Connector, Instance};
use http::header::USER_AGENT;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use thiserror::Error as ThisError;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;

pub(super) use self::answer::Answer;
use self::dial::Dial;
use self::exchange::exchange;
use self::keeper::Keeper;
use self::lane::Common;
use self::pool::{NoPlace, Pool};
use super::body::AnswerBody;
use super::http2::Http2;
use super::transport::{CallError, Connection, Fate, Proof, Transport};
use crate::error::BoxError;
use crate::factory::Lifeline;

/// What is agreed upon where TLS is spoken.
const PROTOCOLS: &[&str] = &["h2"];

pub(super) struct NativeTransport {
    /// Whether all instances are reached over TLS, and not only those that say so.
    tls: bool,
    settings: Http2,
    connect_timeout: Duration,
    plain: OnceCell<Arc<Connector>>,
    secure: OnceCell<Arc<Connector>>,
}

impl NativeTransport {
    pub(super) fn new(tls: bool, settings: Http2, connect_timeout: Duration) -> Self {
        Self { tls, settings, connect_timeout, plain: OnceCell::new(), secure: OnceCell::new() }
    }

    async fn connector(&self, secure: bool) -> Result<Arc<Connector>, BoxError> {
        let (cell, tls) = match secure {
            false => (&self.plain, None),
            true => (&self.secure, Some(self.settings.tls.clone().unwrap_or_default())),
        };
        let connector = cell.get_or_try_init(|| async {
            // It reads files, and all that this machine trusts.
            let made =
                Handle::current().spawn_blocking(move || Connector::new(tls.as_ref(), PROTOCOLS)).await?;
            Ok::<_, BoxError>(Arc::new(made?.for_instances()))
        });
        Ok(Arc::clone(connector.await?))
    }
}

impl Debug for NativeTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeTransport").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for NativeTransport {
    async fn connect(&self, instance: &Arc<Instance>, lifeline: Lifeline) -> Result<Connection, BoxError> {
        let settings = &self.settings;
        let unix = settings.unix.as_ref().and_then(|path| path(instance));
        let secure = unix.is_none() && (self.tls || instance.protocol() == Some("grpcs"));
        let dial = Arc::new(Dial {
            connector: self.connector(secure).await?,
            address: instance.address().clone(),
            unix,
            server_name: settings.server_name.as_ref().and_then(|name| name(instance)),
            keepalive: settings.keepalive,
            streams: settings.streams,
        });
        let authority = match &settings.authority {
            Some(authority) => authority.clone(),
            None => instance.address().to_string().parse()?,
        };
        let pool = Arc::new(Pool::new(Arc::new(Common::new(lifeline)), settings.queue));
        let (lane, driver) = dial.run(&pool.common).await?;
        let mut keeper = Keeper::new(Arc::clone(&pool), dial, settings.connections, self.connect_timeout);
        keeper.keep(&lane, driver);
        let runtime = Handle::current();
        let keeper = AbortOnDropHandle::new(runtime.spawn(keeper.run()));
        let scheme = if secure { Scheme::HTTPS } else { Scheme::HTTP };
        let user_agent = settings.user_agent.clone();
        Ok(NativeConnection { pool, origin: (scheme, authority), user_agent, runtime, _keeper: keeper }
            .into())
    }
}

/// The connections to one instance. They close when it is dropped, which is when no call is left on them.
pub(super) struct NativeConnection {
    pool: Arc<Pool>,
    origin: (Scheme, Authority),
    user_agent: HeaderValue,
    /// Of what is left of requests whose answers have begun.
    runtime: Handle,
    _keeper: AbortOnDropHandle<()>,
}

/// The instance takes no more calls.
#[derive(Debug, ThisError)]
#[error("the connection has closed")]
struct Shut;

/// It has as many calls as it takes, and as many wait as may.
#[derive(Debug, ThisError)]
#[error("its connections have as many calls as they take, and {0} more wait already")]
pub(super) struct Full(usize);

impl NativeConnection {
    pub(super) async fn call(&self, mut request: Request<Body>) -> Result<Response<AnswerBody>, CallError> {
        let (place, sender) = match self.pool.enter().await {
            Ok(seat) => seat,
            Err(why) => {
                let error: BoxError = match why {
                    NoPlace::Shut => Shut.into(),
                    NoPlace::Full(waiting) => Full(waiting).into(),
                };
                return Err(CallError {
                    error,
                    fate: Fate::Unsent(Proof::NeverLeft, Some(Box::new(request))),
                });
            }
        };
        self.dress(&mut request);
        let answer = exchange(place, sender, request, &self.runtime).await?;
        Ok(answer.map(AnswerBody::Native))
    }

    /// Says where a call goes, and who makes it.
    fn dress(&self, request: &mut Request<Body>) {
        let (scheme, authority) = &self.origin;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority.clone());
        // With all three it is a URI.
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.user_agent.clone());
    }
}
