//! Steps of scenarios, and their parser. A scenario is parsed as a whole before it runs, so that a misspelt
//! word is an error.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Maximum time that one step lets pass: ten times what any scenario needs.
const RUN_MAX_SECONDS: u64 = 600;

/// Maximum number of a scenario's CID. The checks use numbers far above.
const CONTENT_MAX: u64 = 10_000;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Ask {
        what: Ask,
        content: u64,
        at: Who,
        expected: Outcome,
    },
    Balanced(u64),
    ChangeMembers {
        change: Change,
        target: Who,
        at: Who,
        expected: Outcome,
    },
    AtPeers(PeerStep, Who),
    Heal,
    Holds {
        content: u64,
        who: Who,
        expected: bool,
    },
    Moved {
        content: u64,
        from: Who,
    },
    Rebalance {
        at: Who,
        expected: Outcome,
    },
    Run(Duration),
    Settle,
    Version(u64),
    Voters(u64),
    WaitLeader,
    WaitStanding(Standing, Who),
    WaitVersion(u64),
}

/// Subject of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    All,
    Follower,
    It,
    Leader,
    Number(usize),
}

/// A client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Pin,
    Read,
    Unpin,
}

/// A client's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Any,
    Found,
    Missing,
    Done,
    Refused,
    Unknown,
}

/// Requested change of a peer's part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Drain,
    Remove,
    Undrain,
}

/// Membership status of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Gone,
    Member,
    Voter,
}

/// Action on a peer, or assertion about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerStep {
    Break,
    Cut,
    Empty,
    Fill,
    Free,
    IpfsDown,
    IpfsForgets,
    IpfsRots,
    IpfsFull,
    IpfsUp,
    Isolate,
    Kill,
    Leads,
    Pause,
    Remember,
    Resume,
    Rot,
    Start,
    Upgrade,
}

impl Change {
    fn parse(word: &str) -> Self {
        match word {
            "add" => Self::Add,
            "drain" => Self::Drain,
            "undrain" => Self::Undrain,
            _ => Self::Remove,
        }
    }
}

impl Step {
    /// Parses a line, in a cluster of `size` peers.
    pub(super) fn parse(line: &str, size: usize) -> Result<Self, String> {
        let one = |word: &str| match Who::parse(word, size)? {
            Who::All => Err("one peer is needed, not all".to_owned()),
            one @ (Who::Follower | Who::It | Who::Leader | Who::Number(_)) => Ok(one),
        };
        let content = |word: &str| number(word, "a CID's number", 0..=CONTENT_MAX);
        let voters = |word: &str| number(word, "a number of peers", 0..=size as u64);
        let version = |word: &str| number(word, "a version", 0..=u64::from(u8::MAX));
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words[..] {
            ["wait", "leader"] => Self::WaitLeader,
            ["wait", "version", wanted] => Self::WaitVersion(version(wanted)?),
            ["wait", standing, who] => Self::WaitStanding(Standing::parse(standing)?, one(who)?),
            ["settle"] => Self::Settle,
            ["heal"] => Self::Heal,
            ["run", seconds] => {
                let seconds = number(seconds, "a number of seconds", 1..=RUN_MAX_SECONDS)?;
                Self::Run(Duration::from_secs(seconds))
            }
            ["voters", wanted] => Self::Voters(voters(wanted)?),
            ["version", wanted] => Self::Version(version(wanted)?),
            ["ipfs", what, who] => Self::AtPeers(PeerStep::parse_ipfs(what)?, Who::parse(who, size)?),
            [what @ ("holds" | "lacks"), number, who] => Self::Holds {
                content: content(number)?,
                who: one(who)?,
                expected: what == "holds",
            },
            ["moved", number, "from", who] => Self::Moved {
                content: content(number)?,
                from: one(who)?,
            },
            [what @ ("pin" | "unpin" | "read"), number, "at", at, expected] => {
                let (what, outcomes) = Ask::parse(what);
                Self::Ask {
                    what,
                    content: content(number)?,
                    at: one(at)?,
                    expected: Outcome::parse(expected, outcomes)?,
                }
            }
            [
                what @ ("add" | "drain" | "remove" | "undrain"),
                target,
                "at",
                at,
                expected,
            ] => Self::ChangeMembers {
                change: Change::parse(what),
                target: one(target)?,
                at: one(at)?,
                expected: Outcome::parse(expected, &["ok", "refused", "unknown", "any"])?,
            },
            ["balanced", most] => Self::Balanced(number(most, "a number of copies", 0..=CONTENT_MAX)?),
            ["rebalance", "at", at, expected] => Self::Rebalance {
                at: one(at)?,
                expected: Outcome::parse(expected, &["ok", "refused", "unknown", "any"])?,
            },
            [what, who] if what != "set" => Self::AtPeers(PeerStep::parse(what)?, Who::parse(who, size)?),
            ["set", ..] => return Err("options are set before any step".to_owned()),
            _ => return Err("there is no such step".to_owned()),
        })
    }
}

impl Who {
    fn parse(word: &str, size: usize) -> Result<Self, String> {
        Ok(match word {
            "all" => Self::All,
            "follower" => Self::Follower,
            "it" => Self::It,
            "leader" => Self::Leader,
            _ => match word.parse() {
                Ok(number) if number < size => Self::Number(number),
                Ok(number) => return Err(format!("there is no peer {number}, the last is {}", size - 1)),
                Err(_) => {
                    let known = ["a peer's number", "leader", "follower", "it", "all"];
                    return Err(unknown(word, &known));
                }
            },
        })
    }
}

impl Ask {
    /// Parses a request and the accepted answer.
    fn parse(word: &str) -> (Self, &'static [&'static str]) {
        match word {
            "pin" => (Self::Pin, &["ok", "refused", "unknown", "any"]),
            "unpin" => (Self::Unpin, &["ok", "refused", "unknown", "any"]),
            _ => (Self::Read, &["found", "none", "refused", "unknown", "any"]),
        }
    }
}

impl Outcome {
    fn parse(word: &str, possible: &[&str]) -> Result<Self, String> {
        if !possible.contains(&word) {
            return Err(unknown(word, possible));
        }
        Ok(match word {
            "found" => Self::Found,
            "none" => Self::Missing,
            "ok" => Self::Done,
            "refused" => Self::Refused,
            "unknown" => Self::Unknown,
            _ => Self::Any,
        })
    }
}

impl Standing {
    fn parse(word: &str) -> Result<Self, String> {
        match word {
            "gone" => Ok(Self::Gone),
            "member" => Ok(Self::Member),
            "voter" => Ok(Self::Voter),
            _ => Err(unknown(word, &["leader", "version", "member", "voter", "gone"])),
        }
    }
}

impl PeerStep {
    fn parse(word: &str) -> Result<Self, String> {
        Ok(match word {
            "break" => Self::Break,
            "cut" => Self::Cut,
            "empty" => Self::Empty,
            "fill" => Self::Fill,
            "free" => Self::Free,
            "isolate" => Self::Isolate,
            "kill" => Self::Kill,
            "leads" => Self::Leads,
            "pause" => Self::Pause,
            "remember" => Self::Remember,
            "resume" => Self::Resume,
            "rot" => Self::Rot,
            "start" => Self::Start,
            "upgrade" => Self::Upgrade,
            _ => return Err(format!("{word:?}: there is no such step")),
        })
    }

    fn parse_ipfs(word: &str) -> Result<Self, String> {
        match word {
            "down" => Ok(Self::IpfsDown),
            "forgets" => Ok(Self::IpfsForgets),
            "rots" => Ok(Self::IpfsRots),
            "full" => Ok(Self::IpfsFull),
            "up" => Ok(Self::IpfsUp),
            _ => Err(unknown(word, &["down", "up", "full", "forgets", "rots"])),
        }
    }
}

fn unknown(word: &str, known: &[&str]) -> String {
    format!("{word:?} is none of: {}", known.join(", "))
}

fn number(word: &str, what: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let parsed = word.parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| format!("{word:?} is not {what} from {} to {}", range.start(), range.end()))
}
