//! Steps of scenarios, and their parser. A scenario is parsed as a whole before it runs, so that a misspelt
//! word is an error.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::ValueEnum;

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
    AtIpfs(IpfsStep, Who),
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Ask {
    Pin,
    Read,
    Unpin,
}

/// A client's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Outcome {
    Any,
    Found,
    #[value(name = "none")]
    Missing,
    #[value(name = "ok")]
    Done,
    Refused,
    Unknown,
}

/// Requested change of a peer's part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Change {
    Add,
    Drain,
    Remove,
    Undrain,
}

/// Membership status of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Standing {
    Member,
    Voter,
    Gone,
}

/// Change of a peer's IPFS node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum IpfsStep {
    Down,
    Up,
    Full,
    Forgets,
    Rots,
}

/// Action on a peer, or assertion about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PeerStep {
    Break,
    Cut,
    Empty,
    Fill,
    Free,
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

/// Answers to a change.
const CHANGED: &[Outcome] = &[Outcome::Done, Outcome::Refused, Outcome::Unknown, Outcome::Any];

/// Answers to a read.
const READ: &[Outcome] = &[
    Outcome::Found,
    Outcome::Missing,
    Outcome::Refused,
    Outcome::Unknown,
    Outcome::Any,
];

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
            ["wait", standing, who] => {
                let standing = parse(standing, Standing::value_variants());
                let standing = standing.map_err(|why| format!("{why}, leader, version"))?;
                Self::WaitStanding(standing, one(who)?)
            }
            ["settle"] => Self::Settle,
            ["heal"] => Self::Heal,
            ["run", seconds] => {
                let seconds = number(seconds, "a number of seconds", 1..=RUN_MAX_SECONDS)?;
                Self::Run(Duration::from_secs(seconds))
            }
            ["voters", wanted] => Self::Voters(voters(wanted)?),
            ["version", wanted] => Self::Version(version(wanted)?),
            ["ipfs", what, who] => {
                let what = parse(what, IpfsStep::value_variants())?;
                Self::AtIpfs(what, Who::parse(who, size)?)
            }
            [what @ ("holds" | "lacks"), number, who] => Self::Holds {
                content: content(number)?,
                who: one(who)?,
                expected: what == "holds",
            },
            ["moved", number, "from", who] => Self::Moved {
                content: content(number)?,
                from: one(who)?,
            },
            [what, number, "at", at, expected] if let Ok(what) = Ask::from_str(what, false) => Self::Ask {
                what,
                content: content(number)?,
                at: one(at)?,
                expected: parse(expected, if what == Ask::Read { READ } else { CHANGED })?,
            },
            [what, target, "at", at, expected] if let Ok(change) = Change::from_str(what, false) => {
                Self::ChangeMembers {
                    change,
                    target: one(target)?,
                    at: one(at)?,
                    expected: parse(expected, CHANGED)?,
                }
            }
            ["balanced", most] => Self::Balanced(number(most, "a number of copies", 0..=CONTENT_MAX)?),
            ["rebalance", "at", at, expected] => Self::Rebalance {
                at: one(at)?,
                expected: parse(expected, CHANGED)?,
            },
            ["set", ..] => return Err("options are set before any step".to_owned()),
            [what, who] if let Ok(what) = PeerStep::from_str(what, false) => {
                Self::AtPeers(what, Who::parse(who, size)?)
            }
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

/// Parses a word as one of the `possible` values.
fn parse<T: ValueEnum>(word: &str, possible: &[T]) -> Result<T, String> {
    let value = possible.iter().find(|value| name(*value) == word);
    value.cloned().ok_or_else(|| {
        let names: Vec<String> = possible.iter().map(name).collect();
        unknown(word, &names.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

/// Returns the word for a value.
fn name<T: ValueEnum>(value: &T) -> String {
    let value = value.to_possible_value().expect("no value is skipped");
    value.get_name().to_owned()
}

fn unknown(word: &str, known: &[&str]) -> String {
    format!("{word:?} is none of: {}", known.join(", "))
}

fn number(word: &str, what: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let parsed = word.parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| format!("{word:?} is not {what} from {} to {}", range.start(), range.end()))
}
