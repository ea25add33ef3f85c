//! Free ports for listeners that start later.

use std::io;
use std::net::TcpListener;
use std::ops::Range;

/// Range below the ephemeral ports (from 32768 on Linux, 49152 elsewhere), so that no outgoing connection
/// takes the port before the listener does.
const PORTS: Range<u16> = 20_000..32_768;

/// Attempts: with half of the range taken, all of them fail once in 10^30.
const TRIES: usize = 100;

/// Binds a free port of this machine. After it is dropped it can be bound again, unless another program has
/// taken it by chance.
///
/// # Errors
/// The system has no free port.
pub fn take_free() -> io::Result<TcpListener> {
    let tried = (0..TRIES).find_map(|_| TcpListener::bind(("127.0.0.1", rand::random_range(PORTS))).ok());
    tried.map_or_else(|| TcpListener::bind(("127.0.0.1", 0)), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_not_ephemeral() {
        let taken: Vec<_> = (0..20).map(|_| take_free().unwrap()).collect();
        for listener in &taken {
            let port = listener.local_addr().unwrap().port();
            assert!(PORTS.contains(&port), "{port}");
        }
    }
}
