//! Signals of the operating system.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels the token at the first SIGINT, SIGTERM or SIGHUP. The second logs a warning, and the third ends
/// the process at once.
pub(super) fn listen() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        for count in 1.. {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                _ = hangup.recv() => "SIGHUP",
            };
            match count {
                1 => {
                    tracing::info!("{name} received, shutting down");
                    stop.cancel();
                }
                2 => tracing::warn!(
                    "still shutting down: one more signal ends the process at once. No acknowledged pin is \
                     lost by that, but the next start takes longer"
                ),
                _ => {
                    tracing::error!("killed by a third signal");
                    std::process::exit(1);
                }
            }
        }
    });
    Ok(shutdown)
}
