//! What has become of a request whose call failed: [`of`] tells.

use std::time::Duration;

use http::Request;
use http::request::Parts;
use thiserror::Error as ThisError;
use tokio::time::timeout;

use super::lent::{Home, Returned};
use super::transport::{CallError, Fate, Proof};
use crate::error::{BoxError, causes};

/// How long it may take until a body is let go of whose stream has ended.
const HOME: Duration = Duration::from_secs(1);

/// The one connection of a tonic channel has ended.
#[derive(Debug, ThisError)]
#[error("the connection has closed")]
pub(super) struct Ended;

/// What has become of a request with this head, whose body is waited for at `home`. `gone` is called if its connection takes
/// no more calls.
pub(super) async fn of(error: BoxError, head: Parts, mut home: Home, gone: impl FnOnce()) -> CallError {
    let says = what_it_says(&error);
    if matches!(says, Says::NeverLeft) {
        // It may live on for the calls that it has: TLS hides the word to go away.
        gone();
    }
    let returned = match says {
        Says::Nothing => home.look(),
        // Whoever was sending the body is about to let go of it.
        _ => timeout(HOME, home.wait()).await.unwrap_or_default(),
    };
    let again = |body| Some(Box::new(Request::from_parts(head, body)));
    let fate = match (says, returned) {
        (_, Some(Returned::Failed(failure))) => Fate::Own(failure),
        (Says::NeverLeft, Some(Returned::Whole { body, .. })) => Fate::Unsent(Proof::NeverLeft, again(body)),
        (Says::Refused, Some(Returned::Whole { body, .. }))
        | (Says::WentAway, Some(Returned::Whole { body, begun: true })) => {
            Fate::Unsent(Proof::Refused, again(body))
        }
        // The body was asked for before its stream ended by the server's word.
        (Says::NeverLeft, None) => Fate::Unsent(Proof::NeverLeft, None),
        (Says::Refused | Says::WentAway, None) => Fate::Unsent(Proof::Refused, None),
        // The connection said it and not the stream: the head may have been on its way by then.
        (Says::WentAway, Some(Returned::Whole { begun: false, .. })) | (Says::Nothing, _) => Fate::Unknown,
    };
    CallError { error, fate }
}

/// What an error says of whether the server has looked at the request.
#[derive(Clone, Copy)]
enum Says {
    Nothing,
    /// It never left this machine.
    NeverLeft,
    /// The server refused the stream.
    Refused,
    /// The server went away, and has not looked at this stream if it is the stream that says so.
    WentAway,
}

fn what_it_says(error: &BoxError) -> Says {
    for cause in causes(&**error) {
        // Asked for a connection after the only one had ended; or cancelled by hyper, which does so with what it has not
        // begun to send when its connection ends.
        if cause.is::<Ended>() || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
        {
            return Says::NeverLeft;
        }
        // The server's own word (RFC 9113, 8.7).
        if let Some(h2) = cause.downcast_ref::<h2::Error>().filter(|h2| h2.is_remote()) {
            if h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM) {
                return Says::Refused;
            }
            if h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR) {
                return Says::WentAway;
            }
        }
    }
    Says::Nothing
}
