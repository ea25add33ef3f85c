//! The network between peers: every link has a latency of its own, loses, repeats and reorders messages, and
//! may be cut in either direction or clogged for a while.

use std::time::Duration;

use crate::options::Options;
use crate::outbox::{Limits, Sent, Stream};
use crate::rng::Rng;

/// Maximum time that a message is in flight: its sender may run on another data folder by then, in another
/// term.
const LATEST: Duration = Duration::from_secs(40);

/// One direction between two peers.
#[derive(Debug, Clone)]
struct Link {
    latency: Duration,
    cut: bool,
    clogged: bool,
    stream: Stream,
}

/// All links.
#[derive(Debug, Clone)]
pub(crate) struct Net {
    links: Vec<Vec<Link>>,
    rng: Rng,
    spread: Duration,
    loss: u64,
    duplicate: u64,
    reorder: u64,
    unreachable: u64,
    late: u64,
    /// True if messages go through the daemon's outbox.
    streams: bool,
    pub(crate) limits: Limits,
}

/// Fate of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives after each of these times: once or twice.
    Arrives(Vec<Duration>),
    /// It is lost; the sender is notified after this time, or never.
    Lost(Option<Duration>),
    /// It is in the outbox, whose first message arrives after this time unless the stream with this number
    /// breaks before.
    Queued(Duration, u64),
}

/// Kind of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partition {
    /// Two sides that cannot reach each other.
    Symmetric,
    /// One side gets no messages from the other.
    Asymmetric,
    /// Two sides, and one peer that is connected to both.
    Bridge,
    /// Each peer is connected to its two neighbours only.
    Ring,
    /// One peer alone.
    Isolate,
    /// One peer sends, but receives nothing.
    Deaf,
    /// One peer receives, but none of its messages arrive.
    Mute,
}

/// All kinds, for drawing one.
pub(crate) const PARTITIONS: [Partition; 7] = [
    Partition::Symmetric,
    Partition::Asymmetric,
    Partition::Bridge,
    Partition::Ring,
    Partition::Isolate,
    Partition::Deaf,
    Partition::Mute,
];

impl Net {
    pub(crate) fn new(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed, "net");
        let spread = Duration::from_millis(options.latency_spread_ms);
        let mut link = || Link {
            latency: Duration::from_millis(options.latency_min_ms) + rng.up_to(spread / 2),
            cut: false,
            clogged: false,
            stream: Stream::default(),
        };
        let size = options.peers + options.learners + options.joiners;
        let links = (0..size).map(|_| (0..size).map(|_| link()).collect()).collect();
        Self {
            links,
            rng,
            spread,
            loss: options.loss,
            duplicate: options.duplicate,
            reorder: options.reorder,
            unreachable: options.unreachable,
            late: options.late,
            streams: options.streams > 0,
            limits: Limits::new(options),
        }
    }

    /// Draws the fate of a message that is sent at `now`.
    pub(crate) fn send(&mut self, now: u64, from: usize, to: usize, message: &[u8]) -> Fate {
        if self.limits.is_too_long(message) {
            return Fate::Lost(Some(Duration::ZERO));
        }
        if !self.streams {
            return self.throw(from, to);
        }
        let latency = self.links[from][to].latency + self.rng.up_to(self.spread / 2);
        // A stream breaks less often than a message is lost, but drops many messages.
        let breaks = self.rng.below(20_000) < self.loss;
        let link = &mut self.links[from][to];
        let sent = link
            .stream
            .send(now, message.to_vec(), latency, link.cut, &self.limits);
        match sent {
            Sent::Refused => Fate::Lost(Some(Duration::ZERO)),
            Sent::Queued(_, opened) if breaks => {
                link.stream.break_off(now, opened, &mut self.rng);
                Fate::Lost(Some(Duration::ZERO))
            }
            Sent::Queued(after, opened) => Fate::Queued(after, opened),
        }
    }

    /// Removes the first message in flight between two peers, on the stream with this number.
    pub(crate) fn arrive(&mut self, from: usize, to: usize, opened: u64) -> Option<Vec<u8>> {
        self.links[from][to].stream.arrive(opened)
    }

    /// Breaks the stream with this number. Returns `false` if it was broken already.
    pub(crate) fn break_off(&mut self, now: u64, from: usize, to: usize, opened: u64) -> bool {
        self.links[from][to].stream.break_off(now, opened, &mut self.rng)
    }

    /// Draws the fate of a message without a stream.
    pub(crate) fn throw(&mut self, from: usize, to: usize) -> Fate {
        if self.links[from][to].cut || self.rng.chance(self.loss) {
            let told = self.rng.chance(self.unreachable);
            return Fate::Lost(told.then(|| self.delay(from, to) * 3));
        }
        let mut delays = vec![self.delay(from, to)];
        if self.rng.chance(self.duplicate) {
            delays.push(self.delay(from, to) + self.rng.up_to(Duration::from_secs(1)));
        }
        Fate::Arrives(delays)
    }

    /// Draws the latency of one message.
    pub(crate) fn delay(&mut self, from: usize, to: usize) -> Duration {
        let usual = self.links[from][to].latency + self.rng.up_to(self.spread / 2);
        if self.late > 0 && self.rng.chance(self.late) {
            return usual + self.rng.up_to(LATEST);
        }
        if self.rng.chance(self.reorder) {
            usual * 2 + self.rng.up_to(self.spread * 8)
        } else {
            usual
        }
    }

    /// Returns whether messages in flight are lost now.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links[from][to].cut
    }

    /// Returns whether messages in flight have to wait.
    pub(crate) fn is_clogged(&self, from: usize, to: usize) -> bool {
        self.links[from][to].clogged
    }

    /// Creates a partition, in place of any earlier one.
    pub(crate) fn partition(&mut self, kind: Partition, rng: &mut Rng) {
        self.heal();
        let mut order: Vec<usize> = (0..self.links.len()).collect();
        rng.shuffle(&mut order);
        let size = order.len();
        let half = 1 + rng.index(size.saturating_sub(1).max(1));
        let place = |peer: usize| {
            order
                .iter()
                .position(|other| *other == peer)
                .expect("everybody is in it")
        };
        let hears = |from: usize, to: usize| {
            let (from, to) = (place(from), place(to));
            match kind {
                Partition::Symmetric => (from < half) == (to < half),
                Partition::Asymmetric => from < half || to >= half,
                Partition::Bridge => from == 0 || to == 0 || (from <= size / 2) == (to <= size / 2),
                Partition::Ring => (from + 1) % size == to || (to + 1) % size == from,
                Partition::Isolate => from != 0 && to != 0,
                Partition::Deaf => to != 0,
                Partition::Mute => from != 0,
            }
        };
        for from in 0..size {
            for to in 0..size {
                self.links[from][to].cut = from != to && !hears(from, to);
            }
        }
    }

    /// Heals all partitions.
    pub(crate) fn heal(&mut self) {
        self.each(|link| link.cut = false);
    }

    /// Isolates a peer, or connects it again.
    pub(crate) fn cut_off(&mut self, peer: usize, cut: bool) {
        for other in 0..self.links.len() {
            self.links[peer][other].cut = cut;
            self.links[other][peer].cut = cut;
        }
    }

    /// Clogs all links of a peer, or clears them.
    pub(crate) fn clog(&mut self, peer: usize, clogged: bool) {
        for other in 0..self.links.len() {
            self.links[peer][other].clogged = clogged;
            self.links[other][peer].clogged = clogged;
        }
    }

    /// Ends all faults except permanent ones.
    pub(crate) fn calm(&mut self) {
        self.loss = 0;
        self.duplicate = 0;
        self.reorder = 0;
        self.late = 0;
        self.each(|link| {
            link.cut = false;
            link.clogged = false;
        });
    }

    fn each(&mut self, change: impl Fn(&mut Link)) {
        self.links.iter_mut().flatten().for_each(change);
    }
}
