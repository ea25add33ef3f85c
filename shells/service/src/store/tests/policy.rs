//! Policy: on disk, in snapshots, and when a folder is founded again.

use super::*;
use crate::store::{StageError, Staging};
use cluster_core::{
    CREDENTIALS_MAX, Drain, FIRST_VERSION, POLICY_VERSION, Policy, Rebalance, RebalanceRun,
    RebalanceSettings, encode_for_version,
};

fn set(id: u64, credentials: &[Credential]) -> Batch {
    let policy = policy(credentials);
    batch(id, vec![StoreOp::SetPolicy { policy }])
}

/// Returns a policy with these credentials and one drain.
fn policy(credentials: &[Credential]) -> Policy {
    Policy {
        credentials: credentials.to_vec(),
        drains: vec![drain(1)],
        rebalance: rebalance(3),
    }
}

/// Returns a run of a rebalancing with this limit of moves.
fn rebalance(moves_max: u32) -> Rebalance {
    Rebalance {
        settings: RebalanceSettings {
            moves_max,
            ..RebalanceSettings::default()
        },
        run: Some(RebalanceRun {
            since: Timestamp(7),
            done: vec![peer(1)],
        }),
    }
}

fn drain(number: u8) -> Drain {
    Drain {
        peer: peer(number),
        since: Timestamp(7),
        pins: 12,
        moves_max: 256,
    }
}

fn stage(store: &Store, manifest: &Manifest) -> Staging {
    let stager = store.stager();
    stager.stage(SnapshotId(1), manifest.clone()).expect("stages")
}

fn manifest() -> Manifest {
    Manifest {
        applied: Applied {
            index: 9,
            term: 1,
            pins: 0,
        },
        members: Members::initial([peer(7)]),
        windows: Vec::new(),
    }
}

fn install(manifest: Manifest) -> Batch {
    let hard_state = HardState {
        commit: manifest.applied.index,
        ..founding().hard_state
    };
    let snapshot = SnapshotId(1);
    let ops = vec![
        StoreOp::InstallSnapshot { snapshot, manifest },
        StoreOp::SetHardState { hard_state },
    ];
    batch(1, ops)
}

#[test]
fn policy_is_read_after_a_restart_and_gone_in_a_new_cluster() {
    let (folder, mut store) = founded();
    let path = folder.path().join("raft");
    let all = [credential(1), credential(2)];
    store.write(&set(1, &all)).expect("writes");
    assert_eq!(*store.reader().policy(), policy(&all));
    store.close().expect("closes");
    let mut store = open(&path);
    assert_eq!(*store.reader().policy(), policy(&all));
    assert_eq!(store.view().policy(), policy(&all));
    store.reinitialise(&founding(), None).expect("founds again");
    assert!(store.reader().policy().is_empty());
    store.close().expect("closes");
    assert!(open(&path).reader().policy().is_empty());
}

#[test]
fn snapshot_replaces_the_policy() {
    let (_sender, mut from) = founded();
    from.write(&set(1, &[credential(1), credential(2)]))
        .expect("writes");
    let source = from.reader().snapshot_source().expect("reads");
    let chunks: Vec<Vec<u8>> = source.collect::<Result<_, _>>().expect("reads");
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0][0], POLICY_VERSION);

    let (folder, mut to) = founded();
    to.write(&set(1, &[credential(3)])).expect("writes");
    let mut staging = stage(&to, &manifest());
    staging.push(&chunks[0]).expect("takes it");
    staging.finish().expect("finishes");
    assert_eq!(*to.reader().policy(), policy(&[credential(3)]), "not yet");
    to.write(&install(manifest())).expect("installs");
    assert_eq!(*to.reader().policy(), policy(&[credential(1), credential(2)]));
    to.close().expect("closes");
    let to = open(&folder.path().join("raft"));
    assert_eq!(*to.reader().policy(), policy(&[credential(1), credential(2)]));
}

/// As a peer of the release before the policy sends it, and as one of this release does without any.
#[test]
fn snapshot_without_a_policy_removes_it_and_is_as_the_last_release_wrote_it() {
    let (_sender, mut from) = founded();
    from.write(&batch(1, pin_ops(1))).expect("writes");
    let mut source = from.reader().snapshot_source().expect("reads");
    let chunk = source.next().expect("one").expect("reads");
    assert_eq!(chunk[0], FIRST_VERSION);
    assert!(source.next().is_none());

    let (_receiver, mut to) = founded();
    to.write(&set(1, &[credential(3)])).expect("writes");
    stage(&to, &manifest()).finish().expect("finishes");
    to.write(&install(manifest())).expect("installs");
    assert!(to.reader().policy().is_empty());
}

#[test]
fn invalid_policy_of_a_snapshot_is_rejected() {
    let (_folder, store) = founded();
    let refused = |chunks: &[Vec<u8>]| {
        let mut staging = stage(&store, &manifest());
        let pushed = chunks.iter().try_for_each(|chunk| staging.push(chunk));
        let Err(StageError::Rejected(why)) = pushed else {
            panic!("{pushed:?}");
        };
        why
    };
    let encoded = |policy: &Policy| encode_for_version(POLICY_VERSION, policy);
    let chunk = |all: &[Credential]| encoded(&policy(all));
    let one = chunk(&[credential(1)]);
    assert_eq!(refused(&[one.clone(), one.clone()]), "the policy comes twice");
    let unsorted = chunk(&[credential(2), credential(1)]);
    assert_eq!(refused(&[unsorted]), "the credentials are out of order");
    let many: Vec<Credential> = (0..=CREDENTIALS_MAX as u64).map(credential).collect();
    assert_eq!(
        refused(&[chunk(&many)]),
        "1001 credentials, at most 1000 are taken"
    );
    let long = Credential {
        name: "n".repeat(65),
        ..credential(1)
    };
    assert!(refused(&[chunk(&[long])]).contains("65 bytes, at most 64"));
    assert!(refused(&[one[..20].to_vec()]).starts_with("the policy: "));
    let drains = |drains: Vec<Drain>| {
        let policy = Policy {
            drains,
            ..Policy::default()
        };
        refused(&[encoded(&policy)])
    };
    assert_eq!(drains(vec![drain(2), drain(1)]), "the drains are out of order");
    assert_eq!(drains(vec![drain(1); 257]), "257 drains, at most 256 are taken");
    let boundless = Drain {
        moves_max: u32::MAX,
        ..drain(1)
    };
    assert!(drains(vec![boundless]).contains("moves, at most 4096"));
    let policy = Policy {
        rebalance: rebalance(5000),
        ..Policy::default()
    };
    assert!(refused(&[encoded(&policy)]).contains("5000 moves, at most 4096"));
}
