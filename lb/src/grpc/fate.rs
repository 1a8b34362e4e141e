//! What has become of a request whose call failed: [`of`] tells.

use std::time::Duration;

use h2::Reason;
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
        match cause.downcast_ref().map(what_h2_says) {
            None | Some(Says::Nothing) => {}
            Some(says) => return says,
        }
    }
    Says::Nothing
}

/// The server's own word (RFC 9113, 8.7).
fn what_h2_says(error: &h2::Error) -> Says {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) if error.is_remote() && error.is_reset() => Says::Refused,
        Some(Reason::NO_ERROR) if error.is_remote() && error.is_go_away() => Says::WentAway,
        _ => Says::Nothing,
    }
}

/// Whether a stream that ended with this has not been looked at by the server. If it went away, whatever for, h2 says so only
/// to streams behind the last one that it named (RFC 9113, 6.8).
pub(super) fn is_refusal(error: &h2::Error) -> bool {
    error.is_remote() && error.is_go_away() || matches!(what_h2_says(error), Says::Refused)
}
