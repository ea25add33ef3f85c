//! Model of the daemon's outbox: one stream for each pair of peers, with a queue that is bounded in messages
//! and bytes. Messages arrive in order and once, or all queued ones are lost when the stream breaks. Messages
//! to a full queue, or to a peer that is known to be down, are refused at once.

use std::collections::VecDeque;
use std::time::Duration;

use crate::options::Options;
use crate::rng::Rng;

/// Minimum and maximum pause before a broken stream is opened again, as in the daemon's outbox.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// A message on its way.
#[derive(Debug, Clone)]
struct Queued {
    bytes: Vec<u8>,
    /// Simulated time at which the stream has taken it, in nanoseconds.
    sent: u64,
}

/// One direction between two peers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    queue: VecDeque<Queued>,
    /// Number of the stream's opening that the queue belongs to.
    opened: u64,
    /// Simulated time at which the stream has sent everything.
    free: u64,
    /// Simulated time at which the last message of the queue arrives.
    last: u64,
    /// The stream is broken until then at least.
    broken: Option<u64>,
}

/// Result of sending a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is queued, arrives after this time, and is of this opening of the stream.
    Queued(Duration, u64),
    /// It is refused at once.
    Refused,
}

/// The limits of all streams.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    messages: usize,
    bytes: usize,
    frame: usize,
    /// Bytes that a stream carries in a millisecond; 0 for no limit.
    rate: u64,
}

impl Limits {
    pub(crate) fn new(options: &Options) -> Self {
        let size = |number: u64| usize::try_from(number).expect("fits in memory");
        Self {
            messages: size(options.outbox_messages),
            bytes: size(options.outbox_kib << 10),
            frame: size(options.frame_kib.max(options.entry_kib + 4) << 10),
            rate: options.rate_kib,
        }
    }

    /// Returns whether a message is too long for a frame.
    pub(crate) fn is_too_long(&self, message: &[u8]) -> bool {
        message.len() > self.frame
    }
}

impl Stream {
    /// Queues a message at `now`, in nanoseconds, over a link that takes `latency` and may be cut.
    pub(crate) fn send(
        &mut self,
        now: u64,
        bytes: Vec<u8>,
        latency: Duration,
        is_cut: bool,
        limits: &Limits,
    ) -> Sent {
        if let Some(until) = self.broken {
            if is_cut || now < until {
                return Sent::Refused;
            }
            self.broken = None;
        }
        let waiting = self.queue.iter().filter(|queued| queued.sent > now);
        let (count, waits) = waiting.fold((0, 0), |(count, sum), queued| {
            (count + 1, sum + queued.bytes.len())
        });
        if count >= limits.messages || waits + bytes.len() > limits.bytes {
            return Sent::Refused;
        }
        let takes = match limits.rate {
            0 => 0,
            rate => bytes.len() as u64 * 1_000_000 / (rate << 10),
        };
        self.free = self.free.max(now) + takes;
        let latency = u64::try_from(latency.as_nanos()).expect("a short time");
        // Messages arrive in the order in which they are sent.
        self.last = (self.free + latency).max(self.last + 1);
        self.queue.push_back(Queued {
            bytes,
            sent: self.free,
        });
        Sent::Queued(Duration::from_nanos(self.last - now), self.opened)
    }

    /// Removes the next message to arrive, if the stream has not broken since it was sent.
    pub(crate) fn arrive(&mut self, opened: u64) -> Option<Vec<u8>> {
        (self.opened == opened)
            .then(|| self.queue.pop_front())?
            .map(|queued| queued.bytes)
    }

    /// Breaks the stream and drops everything in the queue. Returns `false` if it was broken already.
    pub(crate) fn break_off(&mut self, now: u64, opened: u64, rng: &mut Rng) -> bool {
        if self.opened != opened {
            return false;
        }
        self.queue.clear();
        self.opened += 1;
        let [shortest, longest] = PAUSES;
        let pause = shortest + rng.up_to(longest - shortest);
        self.broken = Some(now + u64::try_from(pause.as_nanos()).expect("a short time"));
        (self.free, self.last) = (0, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(5);

    fn limits() -> Limits {
        Limits {
            messages: 3,
            bytes: 100,
            frame: 50,
            rate: 1,
        }
    }

    #[test]
    fn full_queue_refuses_until_the_stream_has_sent() {
        let mut stream = Stream::default();
        let mut send = |now: u64, length: usize| stream.send(now, vec![0; length], LATENCY, false, &limits());
        assert!(matches!(send(0, 40), Sent::Queued(_, 0)));
        assert!(matches!(send(0, 40), Sent::Queued(_, 0)));
        assert_eq!(send(0, 40), Sent::Refused, "too many bytes");
        assert!(matches!(send(0, 1), Sent::Queued(_, 0)));
        assert_eq!(send(0, 1), Sent::Refused, "too many messages");
        assert!(matches!(send(1_000_000_000, 40), Sent::Queued(_, 0)));
    }

    #[test]
    fn broken_stream_loses_its_queue_and_refuses_for_a_while() {
        let mut stream = Stream::default();
        let mut rng = Rng::new(1, "test");
        for number in 0..3 {
            stream.send(0, vec![number], LATENCY, false, &limits());
        }
        assert_eq!(stream.arrive(0), Some(vec![0]), "the first comes first");
        assert!(stream.break_off(10, 0, &mut rng));
        assert!(!stream.break_off(10, 0, &mut rng), "once");
        assert_eq!(stream.arrive(0), None);
        assert_eq!(stream.send(20, vec![9], LATENCY, false, &limits()), Sent::Refused);
        let later = 3_000_000_000;
        assert_eq!(
            stream.send(later, vec![9], LATENCY, true, &limits()),
            Sent::Refused
        );
        assert!(matches!(
            stream.send(later, vec![9], LATENCY, false, &limits()),
            Sent::Queued(_, 1)
        ));
    }
}
