//! Arguments of `auth`.

use clap::{Args, Subcommand};

use super::Ignored;
use super::options::OptionalDuration;

pub(super) const ABOUT: &str = "\
Manages credentials: tokens that permit a part of what the API can do. All peers accept a token as soon as \
it is created, and refuse it as soon as it is revoked.

Scopes:
  read     list and follow pins, status, peers and events; includes metrics
  pin      add, change, remove and retry pins
  add      upload content
  metrics  read metrics
  own      restricts read, pin and add to the pins that the credential itself has made
  admin    everything, including peers, garbage collection and credentials

A token works on the REST API and the pinning service API, and on the IPFS proxy of peers that set \
api.ipfsproxy.require_credentials. A peer demands credentials once it has \
api.restapi.basic_auth_credentials, or api.restapi.require_credentials set to true; without these, its API \
is open to anyone who reaches it.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ipfs-cluster-ctl auth create ci --scope add,pin --expire-in 720h   a token for uploads, valid 30 days
  ipfs-cluster-ctl auth create ann --scope read,pin,add,own          a tenant among others
  ipfs-cluster-ctl auth create bob --scope read,add,own --max-pins 1000 --max-bytes 10000000000
  ipfs-cluster-ctl auth create prometheus --scope metrics
  CLUSTER_AUTH_TOKEN=icc_… ipfs-cluster-ctl pin ls                   use a token
  ipfs-cluster-ctl auth ls
  ipfs-cluster-ctl auth usage bob                                    what counts against its limits
  ipfs-cluster-ctl auth revoke ci";

/// Subcommands of `auth`.
#[derive(Debug, Subcommand)]
pub(crate) enum Auth {
    /// Create a credential, and show its token, once
    Create(AuthCreate),
    /// List all credentials
    Ls(Ignored),
    /// Show how many pins a credential with the scope own holds, and the bytes of its uploads if it has a
    /// limit of bytes
    Usage {
        /// Name or id of the credential
        credential: String,
    },
    /// Revoke a credential: all peers refuse its token from then on
    Revoke {
        /// Name or id of the credential
        credential: String,
    },
    /// Show who you are to the peer, and your scopes
    #[command(name = "self")]
    Own(Ignored),
}

/// Arguments of `auth create`.
#[derive(Debug, Args)]
pub(crate) struct AuthCreate {
    /// Name: letters, digits, and ".", "_", "-", "@"; unique in the cluster
    pub(crate) name: String,
    /// Scopes of the token: read, pin, add, metrics, admin, own; comma-separated
    #[arg(
        long,
        visible_alias = "scopes",
        value_name = "SCOPES",
        required = true,
        value_delimiter = ','
    )]
    pub(crate) scope: Vec<String>,
    /// Expire after this duration, as in 24h; never by default
    #[arg(long, value_name = "DURATION", default_value = "", hide_default_value = true)]
    pub(crate) expire_in: OptionalDuration,
    /// Permit at most this many requests per second at each peer; 0 for no limit
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0)]
    pub(crate) rate: u32,
    /// Permit at most this many pins, with the scope own; 0 for no limit
    #[arg(long, value_name = "PINS", default_value_t = 0)]
    pub(crate) max_pins: u64,
    /// Permit uploads of at most this many bytes in total, with --max-pins; 0 for no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) max_bytes: u64,
}
