//! Free ports for listeners that start later.

use std::io;
use std::net::TcpListener;
use std::ops::Range;

/// Below those that systems take for connections that go out (from 32768 on Linux, 49152 elsewhere), so that
/// none of these has the port when the listener comes.
const PORTS: Range<u16> = 20_000..32_768;

/// With half of the range taken, all of these fail once in 10^30.
const TRIES: usize = 100;

/// Takes a port of this machine that is free. Whoever lets go of it has it again a moment later, unless
/// another program listens there by chance.
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
    fn ports_are_free_and_not_those_of_connections_that_go_out() {
        let taken: Vec<_> = (0..20).map(|_| take_free().unwrap()).collect();
        for listener in &taken {
            let port = listener.local_addr().unwrap().port();
            assert!(PORTS.contains(&port), "{port}");
        }
    }
}
