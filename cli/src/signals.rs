//! What the system says: that the program is to end, and what is the command's to hear. [`Signals`]

use std::io;
use std::time::{Duration, Instant};

/// Words to end that come closer together are one: `timeout` and some shells send each twice.
const ONE: Duration = Duration::from_millis(300);

/// A signal that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// To end.
    End(Signal),
    /// Something that only a command knows the meaning of.
    #[cfg_attr(not(unix), allow(dead_code, reason = "elsewhere there is nothing to pass on"))]
    Pass(Signal),
}

#[cfg(unix)]
pub(crate) use rustix::process::Signal;

/// Elsewhere there is Ctrl-C alone.
#[cfg(not(unix))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    INT,
}

/// Listens to signals, from its making on.
#[derive(Debug)]
pub(crate) struct Signals {
    last: Option<Instant>,
    #[cfg(unix)]
    heard: Vec<(Told, tokio::signal::unix::Signal)>,
    #[cfg(not(unix))]
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(unix)]
impl Signals {
    /// Listens. With a command, what is meant for it is heard too.
    pub(crate) fn listen(with_command: bool) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut wanted = vec![
            (Told::End(Signal::TERM), SignalKind::terminate()),
            (Told::End(Signal::INT), SignalKind::interrupt()),
        ];
        if with_command {
            wanted.extend([
                (Told::Pass(Signal::HUP), SignalKind::hangup()),
                (Told::Pass(Signal::QUIT), SignalKind::quit()),
                (Told::Pass(Signal::USR1), SignalKind::user_defined1()),
                (Told::Pass(Signal::USR2), SignalKind::user_defined2()),
            ]);
        } else {
            wanted.push((Told::End(Signal::HUP), SignalKind::hangup()));
        }
        // `nohup` asks for just that.
        wanted.retain(|(_, kind)| *kind != SignalKind::hangup() || !is_ignored(Signal::HUP));
        let heard = wanted.into_iter().map(|(told, kind)| Ok((told, signal(kind)?)));
        Ok(Self { last: None, heard: heard.collect::<io::Result<_>>()? })
    }

    async fn any(&mut self) -> Told {
        std::future::poll_fn(|context| {
            for (told, signal) in &mut self.heard {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*told);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

#[cfg(not(unix))]
impl Signals {
    /// Listens.
    pub(crate) fn listen(_with_command: bool) -> io::Result<Self> {
        Ok(Self { last: None, interrupt: tokio::signal::windows::ctrl_c()? })
    }

    async fn any(&mut self) -> Told {
        self.interrupt.recv().await;
        Told::End(Signal::INT)
    }
}

impl Signals {
    /// The next one, also if it came between two calls. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Told {
        loop {
            let told = self.any().await;
            if matches!(told, Told::Pass(_)) {
                return told;
            }
            let now = Instant::now();
            if self.last.replace(now).is_none_or(|last| now.duration_since(last) > ONE) {
                return told;
            }
        }
    }

    /// The next word to end. Cancel-safe.
    pub(crate) async fn end(&mut self) -> Signal {
        loop {
            if let Told::End(signal) = self.next().await {
                return signal;
            }
        }
    }
}

/// Whether whoever started this program wants a signal ignored. Listening to it would end that.
#[cfg(unix)]
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal.as_raw() - 1)) != 0
}

/// Hears that the terminal has got another size.
#[derive(Debug)]
pub(crate) struct Resized {
    #[cfg(unix)]
    heard: Option<tokio::signal::unix::Signal>,
}

impl Resized {
    /// Listens; where that is refused, nothing is ever heard.
    pub(crate) fn listen() -> Self {
        Self {
            #[cfg(unix)]
            heard: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change()).ok(),
        }
    }

    /// The next time. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(heard) = &mut self.heard
            && heard.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}
