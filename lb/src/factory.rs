//! [`Factory`]: how an instance becomes an endpoint. Go kit's `sd.Factory`.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use callsign_core::{Instance, InstanceId};
use tokio::sync::mpsc;

use crate::error::BoxError;
use crate::stats::Stats;

/// Makes endpoints: whatever a program calls an instance through, such as a connected client.
///
/// Every `Fn(Arc<Instance>) -> impl Future<Output = Result<E, Error>>` is one, so an `async fn` is:
/// ```
/// # use std::sync::Arc;
/// # use callsign_core::Instance;
/// async fn connect(instance: Arc<Instance>) -> std::io::Result<tokio::net::TcpStream> {
///     tokio::net::TcpStream::connect((instance.address().host(), instance.address().port())).await
/// }
/// ```
///
/// # Contract
/// - `make` fails rather than return an endpoint that cannot be used yet: what it returns is picked at once.
/// - It may be dropped at any await: when it takes too long, or its instance has left.
pub trait Factory<E>: Send + Sync + 'static {
    /// Makes an endpoint of an instance. One that can tell when it is of no more use keeps `lifeline` and
    /// [cuts](Lifeline::cut) it then.
    fn make(
        &self,
        instance: Arc<Instance>,
        lifeline: Lifeline,
    ) -> impl Future<Output = Result<E, BoxError>> + Send;
}

impl<E, F, Fut, Error> Factory<E> for F
where
    F: Fn(Arc<Instance>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<E, Error>> + Send,
    Error: Into<BoxError>,
{
    async fn make(&self, instance: Arc<Instance>, _: Lifeline) -> Result<E, BoxError> {
        self(instance).await.map_err(Into::into)
    }
}

/// How an endpoint says that it is of no more use: its connection has closed. It then leaves the ready set at
/// once, and another one is made in its place, with no call having to fail first.
#[derive(Debug, Clone)]
pub struct Lifeline(Arc<Life>);

#[derive(Debug)]
struct Life {
    key: Key,
    /// Of the instance, where calls see that the endpoint is of no more use without looking here.
    stats: Arc<Stats>,
    told: mpsc::UnboundedSender<News>,
    /// Whether somebody is to look at the statistics and has not yet, who lowers it; `None` where nobody would.
    suspect: Option<Arc<AtomicBool>>,
}

/// What the builder is told by endpoints and calls.
#[derive(Debug)]
pub(crate) enum News {
    /// An endpoint is of no more use.
    Cut(Key),
    /// Some instance may have to be left out, or may be back.
    Suspect,
}

/// One endpoint of one instance: the instance's id, and a number from 1 that no other endpoint has, higher than those of
/// the endpoints before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) id: InstanceId,
    pub(crate) number: u64,
}

impl Lifeline {
    pub(crate) fn new(
        key: Key,
        stats: Arc<Stats>,
        told: mpsc::UnboundedSender<News>,
        suspect: Option<Arc<AtomicBool>>,
    ) -> Self {
        Self(Arc::new(Life { key, stats, told, suspect }))
    }

    /// Says that somebody should look at the statistics; once, until somebody has begun to.
    pub(crate) fn suspect(&self) {
        if let Some(suspect) = &self.0.suspect
            && !suspect.swap(true, Ordering::AcqRel)
        {
            let _ = self.0.told.send(News::Suspect);
        }
    }

    /// Takes the endpoint out. It is not picked any more from this moment; calls under way are left alone.
    /// Every call after the first does nothing.
    pub fn cut(&self) {
        if self.0.stats.cut(self.0.key.number) {
            // The endpointer may be gone, and then nobody needs to know.
            let _ = self.0.told.send(News::Cut(self.0.key.clone()));
        }
    }

    /// Whether it has been cut.
    #[must_use]
    #[inline]
    pub fn is_cut(&self) -> bool {
        self.0.stats.is_cut(self.0.key.number)
    }

    pub(crate) fn key(&self) -> &Key {
        &self.0.key
    }
}
