//! The secret hello: the exchange that precedes everything else on a fresh TCP connection, by which each
//! peer proves that it has the cluster's secret. A connection from a peer without it goes no further.
//!
//! ```text
//! dialer   → listener   magic, version, nonce d, eight MACs of it: one for each secret, then random bytes
//! listener → dialer     magic, version, "known", nonce l, MAC of both nonces; or "unknown", and the end
//! dialer   → listener   MAC of both nonces, followed without a pause by the first message of Noise
//! ```
//!
//! Then Noise XX runs, with a prologue made of the secret and both nonces. Every part has a fixed length
//! and the whole handshake a time limit, so the other end cannot make this side wait or remember more than
//! that.
//!
//! # Why not libp2p's private networks
//!
//! libp2p-pnet encrypts every byte with XSalsa20, below and in addition to Noise, for as long as the
//! connection lasts: bulk transfers took half as long again. It authenticates nothing (its stream cipher has
//! no MAC), so a wrong secret shows as garbage, or as silence until a time limit. Peers talk only to peers
//! of their own cluster, with their own protocol, so its wire format is of no use here.
//!
//! # Why this is sound
//!
//! - A MAC is BLAKE3 in its keyed mode, a pseudorandom function with keys of 256 bits (BLAKE3 paper,
//!   sections 4.9 and 7). Keys are derived from the secret with BLAKE3's `derive_key` under our own
//!   context, so other users of the same secret see unrelated keys. Each MAC covers a label that names its
//!   place in the hello: none can be reflected, or used elsewhere in it.
//! - *Guessing* a secret of 256 random bits is hopeless, on-line as off-line. Comparing takes constant time
//!   (`blake3::Hash` is compared that way).
//! - *Replaying* a dialer's recorded first part makes the listener answer with a fresh nonce; without the
//!   secret the MAC of it is missing, and the listener hangs up before Noise starts. Replaying a listener's
//!   answer fails at the dialer, whose nonce is fresh. Nonces have 256 random bits: they do not repeat.
//! - *In the middle*, an attacker may relay the hello of two honest peers and then talk Noise with each.
//!   The prologue stops that: it is hashed into the transcript that every encrypted message of the
//!   handshake authenticates, so that peers whose prologues differ fail to decrypt the first of them (Noise
//!   Protocol Framework, revision 34, section 6; `snow` calls `mix_hash` with it). An attacker without the
//!   secret does not know the prologue, 256 pseudorandom bits that are new for each connection, and can
//!   complete the handshake with neither peer.
//! - Noise itself proves the peer's identity and makes the keys: authentication of both ends and forward
//!   secrecy do not rest on the secret (the same section: a prologue goes into no cipher key). Unlike
//!   pnet's cipher, or Noise with a pre-shared key, the secret therefore adds nothing to the secrecy of
//!   recorded traffic.
//! - "unknown" is not authenticated: an attacker who can forge it can as well cut the connection. It costs
//!   a dialer one attempt, as any failure does, and reveals nothing but MACs.
//!
//! A peer without a secret uses a public constant as its key. So its failures look the same, and a cluster
//! can introduce a secret without downtime.
//!
//! # Changing the secret without downtime
//!
//! A dialer shows MACs of all its secrets, its own first; the listener takes the first that it knows. Peers
//! that share any of their secrets can talk. See `cluster.accepted_secrets` for the two rounds of restarts
//! that a change takes.

#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::io;

use blake3::Hash;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Maximum number of secrets of one peer: its own and those that it accepts. The hello carries a MAC for
/// each; more changes than that within one round of restarts are unlikely.
pub(super) const SECRETS_MAX: usize = 8;

/// First bytes of every hello. No other protocol that may end up on the port starts like this.
const MAGIC: [u8; 7] = *b"ipfsclu";

/// The version of the hello.
const VERSION: u8 = 1;

const NONCE: usize = 32;
const MAC: usize = blake3::OUT_LEN;
const HEAD: usize = MAGIC.len() + 1;
/// Bytes of a dialer's first part.
const QUESTION: usize = HEAD + NONCE + SECRETS_MAX * MAC;
/// Bytes of a listener's answer.
const ANSWER: usize = HEAD + 1 + NONCE + MAC;

const KNOWN: u8 = 1;
const UNKNOWN: u8 = 0;

/// Key derivation context, which separates these keys from other uses of the secret.
const CONTEXT: &str = "ipfs-cluster 2026-11-22 hello of peers, key of the secret";
/// Public key material, for peers without a secret.
const CONTEXT_NONE: &str = "ipfs-cluster 2026-11-22 hello of peers, key without a secret";

type Nonce = [u8; NONCE];

/// Failure of a hello.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The dialer and the listener have no secret in common. Both ends get this.
    #[error(
        "wrong secret: this peer and the other have no secret in common; compare cluster.secret (and \
         cluster.accepted_secrets) of both"
    )]
    Secret,
    /// The dialer replayed a MAC, or the listener claims to know a secret and does not.
    #[error("wrong secret: the other end replays a recorded hello and does not know the secret")]
    Replayed,
    /// The other end does not speak this protocol.
    #[error("the other end is not a peer of this kind of cluster: it does not start with the hello")]
    Stranger,
    /// The other end speaks another version of the hello.
    #[error("the other end speaks version {0} of the hello, this peer version {VERSION}")]
    Version(u8),
    /// The connection broke.
    #[error("the connection ended during the hello: {0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// Finds this error among the causes of another one, however deeply it is wrapped.
    pub(super) fn within<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            // `source` of an `io::Error` skips the error that it wraps.
            next = wrapped
                .map(|inner| inner as &(dyn StdError + 'static))
                .or_else(|| error.source());
        }
        None
    }

    /// Returns whether the secrets differ.
    pub(super) fn is_about_secrets(&self) -> bool {
        matches!(self, Self::Secret | Self::Replayed)
    }
}

/// Keys of a peer's secrets, its own first. Cheap to clone; never printed.
#[derive(Clone)]
pub(super) struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Derives the keys of `secret` and of the further secrets that are accepted. `None` is a peer without a
    /// secret. Keys beyond [`SECRETS_MAX`] are cut off; the configuration refuses them earlier.
    pub(super) fn new(secret: Option<[u8; 32]>, accepted: &[Option<[u8; 32]>]) -> Self {
        let key = |secret: &Option<[u8; 32]>| match secret {
            Some(secret) => blake3::derive_key(CONTEXT, secret),
            None => blake3::derive_key(CONTEXT_NONE, &[]),
        };
        let all = std::iter::once(&secret).chain(accepted);
        Self(all.take(SECRETS_MAX).map(key).collect())
    }

    /// Returns the first of these keys that made one of a dialer's MACs. Always compares all, in constant
    /// time.
    fn known(&self, dialer: &Nonce, macs: &[u8]) -> Option<[u8; 32]> {
        let mut found = None;
        for shown in macs.chunks_exact(MAC) {
            for key in &self.0 {
                let fits = is(&question_mac(key, dialer), shown);
                found = found.or(fits.then_some(*key));
            }
        }
        found
    }
}

fn mac(key: &[u8; 32], label: &str, nonces: &[&Nonce]) -> Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(label.as_bytes());
    for nonce in nonces {
        hasher.update(nonce.as_slice());
    }
    hasher.finalize()
}

// Labels have the same length and nonces too, so that no two inputs have the same bytes.

fn question_mac(key: &[u8; 32], dialer: &Nonce) -> Hash {
    mac(key, "1 question", &[dialer])
}

fn answer_mac(key: &[u8; 32], dialer: &Nonce, listener: &Nonce) -> Hash {
    mac(key, "2 answer  ", &[dialer, listener])
}

fn confirm_mac(key: &[u8; 32], dialer: &Nonce, listener: &Nonce) -> Hash {
    mac(key, "3 confirm ", &[dialer, listener])
}

fn prologue(key: &[u8; 32], dialer: &Nonce, listener: &Nonce) -> Vec<u8> {
    mac(key, "4 prologue", &[dialer, listener]).as_bytes().to_vec()
}

/// Compares in constant time.
fn is(expected: &Hash, shown: &[u8]) -> bool {
    <[u8; MAC]>::try_from(shown).is_ok_and(|shown| *expected == shown)
}

/// Runs the dialer's side. Returns the prologue for Noise.
pub(super) async fn dial<S>(socket: &mut S, keys: &Keys) -> Result<Vec<u8>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let dialer: Nonce = rand::random();
    let mut question = head(QUESTION);
    question.extend_from_slice(&dialer);
    for at in 0..SECRETS_MAX {
        match keys.0.get(at) {
            Some(key) => question.extend_from_slice(question_mac(key, &dialer).as_bytes()),
            // Hides the number of secrets.
            None => question.extend_from_slice(&rand::random::<[u8; MAC]>()),
        }
    }
    socket.write_all(&question).await?;
    socket.flush().await?;

    read_head(socket).await?;
    let mut answer = [0; ANSWER - HEAD];
    socket.read_exact(&mut answer).await?;
    let (known, rest) = answer.split_first().ok_or(Error::Stranger)?;
    if *known != KNOWN {
        return Err(Error::Secret);
    }
    let (listener, shown) = rest.split_first_chunk::<NONCE>().ok_or(Error::Stranger)?;
    let mut found = None;
    for key in &keys.0 {
        let fits = is(&answer_mac(key, &dialer, listener), shown);
        found = found.or(fits.then_some(key));
    }
    let key = found.ok_or(Error::Replayed)?;
    // Noise follows at once and flushes.
    socket
        .write_all(confirm_mac(key, &dialer, listener).as_bytes())
        .await?;
    Ok(prologue(key, &dialer, listener))
}

/// Runs the listener's side. Returns the prologue for Noise.
pub(super) async fn answer<S>(socket: &mut S, keys: &Keys) -> Result<Vec<u8>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    read_head(socket).await?;
    let mut question = [0; QUESTION - HEAD];
    socket.read_exact(&mut question).await?;
    let (dialer, macs) = question.split_first_chunk::<NONCE>().ok_or(Error::Stranger)?;
    let known = keys.known(dialer, macs);
    let listener: Nonce = rand::random();
    let mut answer = head(ANSWER);
    answer.push(if known.is_some() { KNOWN } else { UNKNOWN });
    answer.extend_from_slice(&listener);
    match &known {
        Some(key) => answer.extend_from_slice(answer_mac(key, dialer, &listener).as_bytes()),
        None => answer.extend_from_slice(&[0; MAC]),
    }
    socket.write_all(&answer).await?;
    socket.flush().await?;
    let Some(key) = known else {
        // Delivers the answer before the end of the stream.
        socket.close().await?;
        return Err(Error::Secret);
    };
    let mut shown = [0; MAC];
    socket.read_exact(&mut shown).await?;
    if !is(&confirm_mac(&key, dialer, &listener), &shown) {
        return Err(Error::Replayed);
    }
    Ok(prologue(&key, dialer, &listener))
}

/// Returns the header of a part of `length` bytes.
fn head(length: usize) -> Vec<u8> {
    let mut part = Vec::with_capacity(length);
    part.extend_from_slice(&MAGIC);
    part.push(VERSION);
    part
}

/// Reads the header alone, so that another protocol is hung up on at once.
async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> Result<(), Error> {
    let mut head = [0; HEAD];
    socket.read_exact(&mut head).await?;
    match head.split_last() {
        Some((&VERSION, magic)) if *magic == MAGIC => Ok(()),
        Some((&version, magic)) if *magic == MAGIC => Err(Error::Version(version)),
        _ => Err(Error::Stranger),
    }
}
