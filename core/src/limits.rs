//! Size limits: of each field of a pin, and of every container of pins on the way to other peers.
//!
//! Each limit leaves room for its container's overhead, so everything that a peer accepts can be replicated:
//!
//! ```text
//! fields of a pin < pin < log entry <= Raft message < largest frame of the network
//! ```
//!
//! The defaults are compared at compile time, a configuration when a [`Node`](crate::Node) starts. Limits are
//! enforced on new input only. Existing log entries are replicated and applied regardless of their size: an
//! earlier release may have written them, and dropping them would make the peers' states diverge.

use serde::{Deserialize, Serialize};

use crate::codec::encoded_len;
use crate::command::{Command, Proposal};
use crate::credential::{CREDENTIAL_LIMITS_MAX, CREDENTIAL_NAME_MAX, Credential};
use crate::drain::{Drain, MOVES_MAX};
use crate::pin::{Pin, PinOptions};
use crate::rebalance::RebalanceChange;

/// Maximum length of a pin's name, in bytes. Every replica of the pinset stores it; Kubo's own limit is 255.
pub const NAME_MAX: usize = 1 << 10;

/// Maximum number of keys of a pin's metadata.
pub const METADATA_KEYS_MAX: usize = 1 << 10;

/// Total of all keys and values of a pin's metadata, in bytes: as much as two request lines.
pub const METADATA_MAX: usize = 16 << 10;

/// Maximum number of origins of a pin. The Go peer dials at most ten.
pub const ORIGINS_MAX: usize = 64;

/// Maximum length of an origin, in bytes. A relayed address with two peer ids and a domain name of 253 bytes
/// is shorter.
pub const ORIGIN_MAX: usize = 512;

/// Maximum number of preferred peers of a pin.
pub const USER_ALLOCATIONS_MAX: usize = 256;

/// Maximum number of allocations of a pin: enough for clusters of hundreds of peers.
pub const ALLOCATIONS_MAX: usize = 1 << 10;

/// Maximum size of an encoded pin, in bytes: above the sum of its fields' limits.
pub const PIN_MAX: usize = 128 << 10;

/// Bytes that a proposal adds to its pin, and an entry or a message to its proposals: ids, lengths, terms and
/// positions, each of at most ten bytes.
pub(crate) const OVERHEAD_MAX: usize = 1 << 10;

/// Maximum size of an encoded peer id with its length prefix, in bytes.
const PEER_ID_ENCODED: usize = 48;

const _: () = {
    let peers = (USER_ALLOCATIONS_MAX + ALLOCATIONS_MAX) * PEER_ID_ENCODED;
    let texts = NAME_MAX + METADATA_MAX + METADATA_KEYS_MAX * 4 + ORIGINS_MAX * (ORIGIN_MAX + 2);
    // The rest is three CIDs of at most 140 bytes, times and replication factors.
    assert!(peers + texts + OVERHEAD_MAX <= PIN_MAX);
    // Beside these: id, hash, scopes, two times and lengths.
    assert!(CREDENTIAL_NAME_MAX + CREDENTIAL_LIMITS_MAX * 8 + 100 <= OVERHEAD_MAX);
    assert!(LimitsConfig::DEFAULT.is_consistent());
};

/// Limits in bytes. The simulator shrinks them, so that its small pins reach them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsConfig {
    /// Maximum size of an encoded pin, in bytes.
    pub pin_bytes: usize,
    /// Maximum size of the encoded proposals in one log entry, in bytes.
    pub entry_bytes: usize,
    /// Maximum size of the encoded entries in one Raft message, and of the proposals in one message to the
    /// leader, in bytes.
    pub message_bytes: usize,
    /// Maximum number of unacknowledged append messages to one follower.
    pub inflight_messages: usize,
    /// Maximum size of the encoded proposals that wait for the leader's disk, in bytes.
    pub pending_bytes: usize,
    /// Maximum size of the encoded client requests that are open at this peer, in bytes.
    pub open_bytes: usize,
}

impl LimitsConfig {
    /// Limits of a production peer.
    pub const DEFAULT: Self = Self {
        pin_bytes: PIN_MAX,
        // About 900 average pins, or two of the largest.
        entry_bytes: 256 << 10,
        message_bytes: 256 << 10,
        // Times `message_bytes`, this is 16 MiB per follower: as much as the network queues.
        inflight_messages: 64,
        pending_bytes: 32 << 20,
        open_bytes: 32 << 20,
    };

    /// Returns whether each accepted item fits into its container.
    pub const fn is_consistent(&self) -> bool {
        self.pin_bytes + OVERHEAD_MAX <= self.entry_bytes
            && self.entry_bytes <= self.message_bytes
            && self.message_bytes <= self.pending_bytes
            && self.pin_bytes + OVERHEAD_MAX <= self.open_bytes
            && self.inflight_messages > 0
    }

    /// Returns the longest Raft message that this release builds from its own entries, in bytes.
    pub const fn longest_message(&self) -> usize {
        self.message_bytes + 2 * OVERHEAD_MAX
    }

    /// Checks that a command is small enough to be proposed.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] names the field and its limit.
    pub(crate) fn check(&self, command: &Command) -> Result<(), TooLarge> {
        match command {
            Command::Pin { pin, .. } => {
                pin.check()?;
                TooLarge::unless("the encoded pin", "bytes", encoded_len(pin), self.pin_bytes)
            }
            Command::CreateCredential { credential } => credential.check(),
            Command::Release { owner, .. } => {
                TooLarge::unless("the name of the owner", "bytes", owner.len(), CREDENTIAL_NAME_MAX)
            }
            Command::Drain { drain } => drain.check(),
            Command::Reallocate { allocations, .. } => too_many_allocations(allocations.len()),
            Command::Rebalance { change } => change.check(),
            Command::Admit { .. }
            | Command::EndDrain { .. }
            | Command::Members(_)
            | Command::RevokeCredential { .. }
            | Command::Unpin { .. } => Ok(()),
        }
    }

    /// Returns whether another peer's proposal is small enough to be appended to the log.
    pub(crate) fn allows(&self, proposal: &Proposal) -> bool {
        self.check(&proposal.command).is_ok()
    }
}

/// A field that exceeds its limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field} has {size} {unit}, at most {limit} are allowed")]
pub struct TooLarge {
    /// Name of the field, for display.
    pub field: String,
    /// Unit of `size` and `limit`.
    pub unit: String,
    /// Requested size.
    pub size: usize,
    /// Maximum size, in `unit`.
    pub limit: usize,
}

impl TooLarge {
    pub(crate) fn unless(field: &str, unit: &str, size: usize, limit: usize) -> Result<(), Self> {
        if size <= limit {
            return Ok(());
        }
        Err(Self {
            field: field.to_owned(),
            unit: unit.to_owned(),
            size,
            limit,
        })
    }
}

impl PinOptions {
    /// Checks each field against its limit.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] names the first field that exceeds its limit.
    pub fn check(&self) -> Result<(), TooLarge> {
        let metadata = self.metadata.iter().map(|(key, value)| key.len() + value.len());
        let origin = self.origins.iter().map(String::len).max().unwrap_or(0);
        let preferred = self.user_allocations.len();
        TooLarge::unless("the name of the pin", "bytes", self.name.len(), NAME_MAX)?;
        TooLarge::unless(
            "the pin's metadata",
            "keys",
            self.metadata.len(),
            METADATA_KEYS_MAX,
        )?;
        TooLarge::unless("the pin's metadata", "bytes", metadata.sum(), METADATA_MAX)?;
        TooLarge::unless(
            "the pin's list of origins",
            "origins",
            self.origins.len(),
            ORIGINS_MAX,
        )?;
        TooLarge::unless("an origin of the pin", "bytes", origin, ORIGIN_MAX)?;
        TooLarge::unless(
            "the list of user allocations",
            "peers",
            preferred,
            USER_ALLOCATIONS_MAX,
        )
    }
}

impl Pin {
    /// Checks each field against its limit, and the whole against [`PIN_MAX`].
    ///
    /// # Errors
    ///
    /// [`TooLarge`] names the first field that exceeds its limit.
    pub fn check(&self) -> Result<(), TooLarge> {
        self.options.check()?;
        too_many_allocations(self.allocations.len())?;
        TooLarge::unless("the encoded pin", "bytes", encoded_len(self), PIN_MAX)
    }
}

impl Credential {
    /// Checks each field against its limit.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] names the first field that exceeds its limit.
    pub fn check(&self) -> Result<(), TooLarge> {
        let name = self.name.len();
        TooLarge::unless("the name of the credential", "bytes", name, CREDENTIAL_NAME_MAX)?;
        let limits = self.limits.len();
        TooLarge::unless("the credential", "limits", limits, CREDENTIAL_LIMITS_MAX)
    }
}

impl Drain {
    /// Checks the number of moves against its limit.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if it exceeds [`MOVES_MAX`].
    pub fn check(&self) -> Result<(), TooLarge> {
        let (size, limit) = (self.moves_max as usize, MOVES_MAX as usize);
        TooLarge::unless("the limit of the drain", "moves", size, limit)
    }
}

impl RebalanceChange {
    /// Checks the number of moves against its limit.
    ///
    /// # Errors
    ///
    /// [`TooLarge`] if that of one peer exceeds [`MOVES_MAX`].
    pub fn check(&self) -> Result<(), TooLarge> {
        let Self::Settings(settings) = self else {
            return Ok(());
        };
        let (size, limit) = (settings.moves_max as usize, MOVES_MAX as usize);
        TooLarge::unless("the limit of the rebalancing", "moves", size, limit)
    }
}

fn too_many_allocations(count: usize) -> Result<(), TooLarge> {
    TooLarge::unless("the list of allocations", "peers", count, ALLOCATIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::{PinType, Replicas};
    use crate::testing::{cid, options, peer};
    use crate::time::Timestamp;

    fn largest() -> Pin {
        let mut options = options(Replicas::Range {
            min: 1,
            max: u32::MAX,
        });
        options.name = "n".repeat(NAME_MAX);
        let value = "v".repeat(METADATA_MAX / METADATA_KEYS_MAX - 5);
        let pairs = (0..METADATA_KEYS_MAX).map(|n| (format!("{n:05}"), value.clone()));
        options.metadata = pairs.collect();
        options.origins = vec!["o".repeat(ORIGIN_MAX); ORIGINS_MAX];
        options.user_allocations = vec![peer(1); USER_ALLOCATIONS_MAX];
        options.pin_update = Some(cid(2));
        options.expire_at = Some(Timestamp(u64::MAX));
        Pin {
            cid: cid(1),
            pin_type: PinType::Meta,
            allocations: vec![peer(1); ALLOCATIONS_MAX],
            reference: Some(cid(3)),
            options,
            timestamp: Timestamp(u64::MAX),
            version: u64::MAX,
        }
    }

    #[test]
    fn pin_with_every_field_at_its_limit_is_accepted() {
        assert_eq!(largest().check(), Ok(()));
    }

    #[test]
    fn each_field_over_its_limit_is_named_with_size_and_limit() {
        let refused = |change: fn(&mut Pin)| {
            let mut pin = largest();
            change(&mut pin);
            pin.check().unwrap_err().to_string()
        };
        let over = "has 1025 bytes, at most 1024 are allowed";
        assert_eq!(
            refused(|pin| pin.options.name.push('n')),
            format!("the name of the pin {over}")
        );
        assert_eq!(
            refused(|pin| pin.options.origins[7].push('o')),
            "an origin of the pin has 513 bytes, at most 512 are allowed"
        );
        assert_eq!(
            refused(|pin| pin.options.origins.push(String::new())),
            "the pin's list of origins has 65 origins, at most 64 are allowed"
        );
        assert_eq!(
            refused(|pin| pin.options.user_allocations.push(peer(1))),
            "the list of user allocations has 257 peers, at most 256 are allowed"
        );
        assert_eq!(
            refused(|pin| pin.allocations.push(peer(1))),
            "the list of allocations has 1025 peers, at most 1024 are allowed"
        );
        assert_eq!(
            refused(|pin| pin.options.metadata.values_mut().next().unwrap().push('v')),
            "the pin's metadata has 16385 bytes, at most 16384 are allowed"
        );
        assert_eq!(
            refused(|pin| drop(pin.options.metadata.insert("k".to_owned(), String::new()))),
            "the pin's metadata has 1025 keys, at most 1024 are allowed"
        );
    }
}
