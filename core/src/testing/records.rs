//! Proptest strategies for every record that is sent or stored. They list all variants and fields, so that a
//! new one does not compile until it is generated too.

#![expect(
    clippy::vec_init_then_push,
    reason = "an element of `vec![]` cannot depend on a cfg, as some variants do"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;

use crate::*;

/// Builds the union of the strategies of all variants.
macro_rules! each {
    ($kind:ident { $($(#[$only:meta])? $variant:ident => $strategy:expr),+ $(,)? }) => {{
        let _all_are_here = |value: &$kind| match value {
            $($(#[$only])? $kind::$variant { .. } => (),)+
        };
        let mut all: Vec<BoxedStrategy<$kind>> = Vec::new();
        $($(#[$only])? all.push($strategy.boxed());)+
        Union::new(all)
    }};
    ($kind:ident { $($variant:ident),+ $(,)? }) => {
        each!($kind { $($variant => Just($kind::$variant),)+ })
    };
}

/// Upper bound (exclusive) of collection sizes; larger ones would only be slower.
const FEW: usize = 4;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,12}", "\\PC{0,4}"]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

pub(crate) fn any_peer() -> impl Strategy<Value = PeerId> {
    (any::<u8>(), vec(any::<u8>(), 1..63)).prop_map(|(code, digest)| {
        let length = u8::try_from(digest.len()).expect("is short");
        PeerId::from_bytes(&[&[code, length], &digest[..]].concat()).expect("is a multihash")
    })
}

/// Generates CIDs of both versions, with any codec and hash function, and digests up to the longest.
pub(crate) fn any_cid() -> impl Strategy<Value = Cid> {
    type Parsed = cid::CidGeneric<128>;
    let digest = prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 128..=128)];
    let new = (any::<u64>(), any::<u64>(), digest).prop_map(|(codec, code, digest)| {
        let hash = cid::multihash::Multihash::wrap(code, &digest).expect("fits");
        Cid::from_bytes(&Parsed::new_v1(codec, hash).to_bytes()).expect("is a CID")
    });
    let old = any::<[u8; 32]>()
        .prop_map(|digest| Cid::from_bytes(&[&[18, 32], &digest[..]].concat()).expect("is a CID"));
    prop_oneof![3 => new, 1 => old]
}

fn raft_id() -> impl Strategy<Value = RaftId> {
    any::<u64>().prop_map(RaftId)
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<u64>().prop_map(Incarnation)
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

fn mode() -> impl Strategy<Value = Mode> {
    each!(Mode { Direct, Recursive })
}

fn pin_type() -> impl Strategy<Value = PinType> {
    each!(PinType {
        Data,
        Meta,
        ClusterDag,
        Shard,
    })
}

fn replicas() -> impl Strategy<Value = Replicas> {
    each!(Replicas {
        Everywhere => Just(Replicas::Everywhere),
        Range => any::<(u32, u32)>().prop_map(|(min, max)| Replicas::Range { min, max }),
    })
}

fn pin_options() -> impl Strategy<Value = PinOptions> {
    let what = (replicas(), text(), mode(), any::<u64>());
    let who = (
        vec(any_peer(), 0..FEW),
        option::of(timestamp()),
        btree_map(text(), text(), 0..FEW),
    );
    (what, who, option::of(any_cid()), vec(text(), 0..FEW)).prop_map(|(what, who, pin_update, origins)| {
        let (replicas, name, mode, shard_size) = what;
        let (user_allocations, expire_at, metadata) = who;
        PinOptions {
            replicas,
            name,
            mode,
            shard_size,
            user_allocations,
            expire_at,
            metadata,
            pin_update,
            origins,
        }
    })
}

pub(crate) fn pin() -> impl Strategy<Value = Pin> {
    let what = (
        any_cid(),
        pin_type(),
        vec(any_peer(), 0..FEW),
        option::of(any_cid()),
    );
    (what, pin_options(), timestamp(), any::<u64>()).prop_map(|(what, options, timestamp, version)| {
        let (cid, pin_type, allocations, reference) = what;
        Pin {
            cid,
            pin_type,
            allocations,
            reference,
            options,
            timestamp,
            version,
        }
    })
}

fn lane() -> impl Strategy<Value = Lane> {
    each!(Lane {
        Unpin,
        Fresh,
        Retry,
        Surplus,
    })
}

pub(crate) fn queue_key() -> impl Strategy<Value = QueueKey> {
    (lane(), any::<u64>(), any_cid()).prop_map(|(lane, at, cid)| QueueKey { lane, at, cid })
}

fn phase() -> impl Strategy<Value = Phase> {
    each!(Phase {
        PinError,
        PinQueued,
        Pinned,
        UnpinError,
        UnpinQueued,
        Lost,
    })
}

pub(crate) fn local() -> impl Strategy<Value = Local> {
    let fields = (
        phase(),
        mode(),
        any::<u32>(),
        text(),
        timestamp(),
        option::of(queue_key()),
    );
    fields.prop_map(|(phase, mode, attempts, error, since, queued)| Local {
        phase,
        mode,
        attempts,
        error,
        since,
        queued,
    })
}

fn member() -> impl Strategy<Value = Member> {
    (any_peer(), option::of(incarnation())).prop_map(|(peer, incarnation)| Member { peer, incarnation })
}

pub(crate) fn members() -> impl Strategy<Value = Members> {
    let ids = || btree_set(raft_id(), 0..FEW);
    let peers = || -> BoxedStrategy<BTreeSet<PeerId>> { btree_set(any_peer(), 0..FEW).boxed() };
    let head = (any::<[u8; 16]>(), any::<u8>(), any::<bool>(), raft_id());
    let votes = (ids(), ids(), ids(), ids());
    let others = (peers(), peers(), peers());
    let members = btree_map(raft_id(), member(), 0..FEW);
    (head, members, votes, others).prop_map(|(head, peers, votes, others)| {
        let (cluster, version, auto_leave, next_raft_id) = head;
        let (voters, outgoing, learners, learners_next) = votes;
        let (joining, leaving, departed) = others;
        Members {
            cluster: ClusterId(cluster),
            version,
            peers,
            voters,
            outgoing,
            learners,
            learners_next,
            auto_leave,
            next_raft_id,
            joining,
            leaving,
            departed,
        }
    })
}

fn members_wish() -> impl Strategy<Value = MembersWish> {
    each!(MembersWish {
        Add => any_peer().prop_map(|peer| MembersWish::Add { peer }),
        Remove => any_peer().prop_map(|peer| MembersWish::Remove { peer }),
        RaiseVersion => any::<u8>().prop_map(|version| MembersWish::RaiseVersion { version }),
        #[cfg(any(debug_assertions, planted_bugs))]
        Next => Just(MembersWish::Next),
    })
}

pub(crate) fn members_change() -> impl Strategy<Value = MembersChange> {
    let step = each!(MembersStep {
        AddLearner => (raft_id(), member())
            .prop_map(|(raft_id, member)| MembersStep::AddLearner { raft_id, member }),
        Promote => raft_id().prop_map(|raft_id| MembersStep::Promote { raft_id }),
        Demote => raft_id().prop_map(|raft_id| MembersStep::Demote { raft_id }),
        Remove => raft_id().prop_map(|raft_id| MembersStep::Remove { raft_id }),
    });
    vec(step, 0..FEW).prop_map(|steps| MembersChange { steps })
}

fn precondition() -> impl Strategy<Value = Precondition> {
    each!(Precondition {
        Absent => Just(Precondition::Absent),
        Any => Just(Precondition::Any),
        Version => any::<u64>().prop_map(Precondition::Version),
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    each!(Scope {
        Read,
        Pin,
        Add,
        Admin,
        Metrics,
        Own,
    })
}

fn credential_limit() -> impl Strategy<Value = CredentialLimit> {
    each!(CredentialLimit {
        RequestsPerSecond => any::<u32>().prop_map(CredentialLimit::RequestsPerSecond),
        Pins => any::<u64>().prop_map(CredentialLimit::Pins),
        Bytes => any::<u64>().prop_map(CredentialLimit::Bytes),
    })
}

pub(crate) fn credential() -> impl Strategy<Value = Credential> {
    let what = (
        any::<u64>(),
        text(),
        any::<[u8; 32]>(),
        btree_set(scope(), 0..FEW),
    );
    let when = (timestamp(), option::of(timestamp()));
    (what, when, vec(credential_limit(), 0..FEW)).prop_map(|(what, (created, expire_at), limits)| {
        let (id, name, hash, scopes) = what;
        Credential {
            id: CredentialId(id),
            name,
            hash,
            scopes,
            created,
            expire_at,
            limits,
        }
    })
}

fn drain() -> impl Strategy<Value = Drain> {
    let fields = (any_peer(), timestamp(), any::<u64>(), any::<u32>());
    fields.prop_map(|(peer, since, pins, moves_max)| Drain {
        peer,
        since,
        pins,
        moves_max,
    })
}

fn rebalance_settings() -> impl Strategy<Value = RebalanceSettings> {
    let limits = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>());
    (any::<bool>(), any::<u32>(), limits).prop_map(|(automatic, threshold_percent, limits)| {
        let (moves_max, moves_total_max, bytes_per_second, bytes_total_per_second) = limits;
        RebalanceSettings {
            automatic,
            threshold_percent,
            moves_max,
            moves_total_max,
            bytes_per_second,
            bytes_total_per_second,
        }
    })
}

fn rebalance() -> impl Strategy<Value = Rebalance> {
    let run = (timestamp(), vec(any_peer(), 0..FEW)).prop_map(|(since, done)| RebalanceRun { since, done });
    (rebalance_settings(), option::of(run)).prop_map(|(settings, run)| Rebalance { settings, run })
}

fn rebalance_change() -> impl Strategy<Value = RebalanceChange> {
    each!(RebalanceChange {
        Settings => rebalance_settings().prop_map(RebalanceChange::Settings),
        Start => timestamp().prop_map(|since| RebalanceChange::Start { since }),
        Done => (any_peer(), timestamp())
            .prop_map(|(peer, since)| RebalanceChange::Done { peer, since }),
        End => option::of(timestamp()).prop_map(|since| RebalanceChange::End { since }),
    })
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let fields = (vec(credential(), 0..FEW), vec(drain(), 0..FEW), rebalance());
    fields.prop_map(|(credentials, drains, rebalance)| Policy {
        credentials,
        drains,
        rebalance,
    })
}

fn command() -> impl Strategy<Value = Command> {
    let reallocation = (any_cid(), vec(any_peer(), 0..FEW), any::<u64>());
    each!(Command {
        Admit => (raft_id(), incarnation())
            .prop_map(|(raft_id, incarnation)| Command::Admit { raft_id, incarnation }),
        Members => members_wish().prop_map(Command::Members),
        Pin => (pin(), precondition())
            .prop_map(|(pin, precondition)| Command::Pin { pin, precondition }),
        Reallocate => reallocation.prop_map(|(cid, allocations, version)| Command::Reallocate {
            cid,
            allocations,
            version,
        }),
        Unpin => (any_cid(), precondition())
            .prop_map(|(cid, precondition)| Command::Unpin { cid, precondition }),
        CreateCredential => credential()
            .prop_map(|credential| Command::CreateCredential { credential }),
        Drain => drain().prop_map(|drain| Command::Drain { drain }),
        EndDrain => any_peer().prop_map(|peer| Command::EndDrain { peer }),
        Rebalance => rebalance_change().prop_map(|change| Command::Rebalance { change }),
        RevokeCredential => any::<u64>()
            .prop_map(|id| Command::RevokeCredential { id: CredentialId(id) }),
        Release => (any_cid(), text()).prop_map(|(cid, owner)| Command::Release { cid, owner }),
    })
}

pub(crate) fn proposals() -> impl Strategy<Value = Vec<Proposal>> {
    let id = (raft_id(), any::<u64>(), any::<u64>());
    let proposal = (id, command()).prop_map(|((origin, boot, seq), command)| Proposal {
        id: ProposalId { origin, boot, seq },
        command,
    });
    vec(proposal, 0..FEW)
}

pub(crate) fn window() -> impl Strategy<Value = Window> {
    let fields = (
        raft_id(),
        any::<u64>(),
        any::<u64>(),
        btree_set(any::<u64>(), 0..FEW),
    );
    fields.prop_map(|(origin, boot, high, missing)| Window {
        origin,
        boot,
        high,
        missing,
    })
}

pub(crate) fn applied() -> impl Strategy<Value = Applied> {
    any::<(u64, u64, u64)>().prop_map(|(index, term, pins)| Applied { index, term, pins })
}

pub(crate) fn manifest() -> impl Strategy<Value = Manifest> {
    (applied(), members(), vec(window(), 0..FEW)).prop_map(|(applied, members, windows)| Manifest {
        applied,
        members,
        windows,
    })
}

/// Contexts of read requests, as sent to other peers.
pub(crate) fn read_context() -> impl Strategy<Value = (ReadId, (u64, Incarnation))> {
    (any::<u64>(), (any::<u64>(), incarnation())).prop_map(|(read, process)| (ReadId(read), process))
}

pub(crate) fn hard_state() -> impl Strategy<Value = HardState> {
    let identity = each!(Identity {
        Founding => Just(Identity::Founding),
        Unknown => Just(Identity::Unknown),
        Known => raft_id().prop_map(Identity::Known),
        Removed => raft_id().prop_map(Identity::Removed),
    });
    (identity, any::<u64>(), option::of(raft_id()), any::<u64>()).prop_map(
        |(identity, term, vote, commit)| HardState {
            identity,
            term,
            vote,
            commit,
        },
    )
}

pub(crate) fn log_entry() -> impl Strategy<Value = LogEntry> {
    let payload = each!(Payload {
        Commands => bytes().prop_map(Payload::Commands),
        Members => bytes().prop_map(Payload::Members),
    });
    (any::<u64>(), any::<u64>(), payload).prop_map(|(index, term, payload)| LogEntry { index, term, payload })
}

fn raft_kind() -> impl Strategy<Value = RaftKind> {
    each!(RaftKind {
        Append,
        AppendResponse,
        RequestVote,
        RequestVoteResponse,
        Snapshot,
        Heartbeat,
        HeartbeatResponse,
        TransferLeader,
        TimeoutNow,
        ReadIndex,
        ReadIndexResp,
        RequestPreVote,
        RequestPreVoteResponse,
    })
}

pub(crate) fn raft_message() -> impl Strategy<Value = RaftMessage> {
    let head = (raft_kind(), raft_id(), raft_id());
    let positions = any::<[u64; 7]>();
    let rest = (any::<bool>(), bytes(), any::<i64>());
    (head, positions, vec(log_entry(), 0..FEW), rest).prop_map(|(head, positions, entries, rest)| {
        let (kind, from, to) = head;
        let [
            term,
            log_term,
            index,
            commit,
            commit_term,
            request_snapshot,
            reject_hint,
        ] = positions;
        let (reject, context, priority) = rest;
        RaftMessage {
            kind,
            from,
            to,
            term,
            log_term,
            index,
            entries,
            commit,
            commit_term,
            request_snapshot,
            reject,
            reject_hint,
            context,
            priority,
        }
    })
}

fn metric() -> impl Strategy<Value = Metric> {
    let fields = (
        text(),
        text(),
        any::<i64>(),
        any::<bool>(),
        any::<Duration>(),
        any::<bool>(),
    );
    fields.prop_map(|(name, value, weight, partitionable, ttl, valid)| Metric {
        name,
        value,
        weight,
        partitionable,
        ttl,
        valid,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let copies = || {
        let copy = (any_cid(), any::<u64>()).prop_map(|(cid, version)| CopyOf { cid, version });
        vec(copy, 0..FEW)
    };
    each!(Message {
        Hello => Just(Message::Hello),
        Metrics => vec(metric(), 0..FEW).prop_map(Message::Metrics),
        NotMember => any::<u64>().prop_map(|as_of| Message::NotMember { as_of }),
        Propose => proposals().prop_map(Message::Propose),
        Raft => raft_message().prop_map(Message::Raft),
        AskCopies => copies().prop_map(Message::AskCopies),
        HasCopies => copies().prop_map(Message::HasCopies),
    })
}

pub(crate) fn envelope() -> impl Strategy<Value = Envelope> {
    let sender = (
        any::<[u8; 16]>(),
        incarnation(),
        option::of(incarnation()),
        any::<u8>(),
    );
    (sender, message()).prop_map(|((cluster, incarnation, addressee, version), message)| Envelope {
        cluster: ClusterId(cluster),
        incarnation,
        addressee,
        version,
        message,
    })
}
