//! [`Channel`]: a balanced gRPC channel that a generated tonic client takes as it is.
//!
//! ```no_run
//! # async fn example(registry: callsign_core::Registry) -> Result<(), Box<dyn std::error::Error>> {
//! use callsign_lb::grpc::Channel;
//!
//! let channel = Channel::new(registry.watch(&"book".parse()?));
//! let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
//! let reply = health.check(tonic_health::pb::HealthCheckRequest::default()).await?;
//! # Ok(())
//! # }
//! ```

mod body;
mod builder;
mod call;
mod channel;
mod deadline;
mod fate;
mod frames;
mod http2;
mod io;
mod kept;
mod lent;
mod native;
mod status;
mod tonic_transport;
mod transport;

pub use body::ResponseBody;
pub use builder::ChannelBuilder;
pub use call::ResponseFuture;
pub use channel::Channel;
pub use http2::Http2;
pub use transport::Connection;
