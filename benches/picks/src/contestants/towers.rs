//! tower's balancer: by peak EWMA as it is, and as tonic has it, which is behind a buffer and blind to load.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::task::noop_waker_ref;
use tokio::runtime::{Builder, Runtime};
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, Constant, PeakEwma};
use tower::util::BoxService;
use tower::{Service, ServiceExt};

use super::{Contestant, Handle};

/// Answers at once.
#[derive(Clone)]
struct Instance;

impl Service<()> for Instance {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

/// tonic's.
const BUFFER: usize = 1024;

type Buffered = Buffer<(), <BoxService<(), (), tower::BoxError> as Service<()>>::Future>;

/// The buffer's worker runs on the current runtime.
fn buffered(instances: usize) -> Buffered {
    let services = (0..instances).map(|_| Constant::new(Instance, 0_u32));
    let balance = Balance::new(ServiceList::new::<()>(services.collect::<Vec<_>>()));
    Buffer::new(BoxService::new(balance), BUFFER)
}

async fn calls(buffered: &mut Buffered, count: u32) {
    for _ in 0..count {
        if let Ok(service) = buffered.ready().await {
            let _ = service.call(()).await;
        }
    }
}

pub(super) fn contestants(instances: usize) -> Vec<Contestant> {
    let ewma = move |_| -> Handle {
        let services = (0..instances)
            .map(|_| PeakEwma::new(Instance, Duration::from_millis(30), 10e9, CompleteOnResponse::default()));
        let mut balance = Balance::new(ServiceList::new::<()>(services.collect::<Vec<_>>()));
        Box::new(move |picks| {
            let mut context = Context::from_waker(noop_waker_ref());
            for _ in 0..picks {
                if balance.poll_ready(&mut context).is_ready() {
                    let _ = balance.call(()).now_or_never();
                }
            }
        })
    };
    // Threads share it through a runtime of two threads; one thread has all of it on its own, which is the best for it.
    let shared: std::cell::OnceCell<Option<(Arc<Runtime>, Buffered)>> = std::cell::OnceCell::new();
    let buffer = move |threads| -> Handle {
        if threads == 1 {
            let Ok(runtime) = Builder::new_current_thread().build() else { return Box::new(|_| {}) };
            let mut service = runtime.block_on(async { buffered(instances) });
            return Box::new(move |picks| runtime.block_on(calls(&mut service, picks)));
        }
        let shared = shared.get_or_init(|| {
            let runtime = Builder::new_multi_thread().worker_threads(2).build().ok()?;
            let service = runtime.block_on(async { buffered(instances) });
            Some((Arc::new(runtime), service))
        });
        let Some((runtime, mut service)) = shared.clone() else { return Box::new(|_| {}) };
        Box::new(move |picks| runtime.block_on(calls(&mut service, picks)))
    };
    vec![
        Contestant::alone("tower p2c + PeakEwma", ewma),
        Contestant::new("tonic's way, p2c behind a buffer", buffer),
    ]
}
