//! Simulated disk against the store on fjall: writes, power cuts and bit rot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cluster_core::{
    Applied, Batch, BatchId, Cid, Credential, CredentialId, Drain, HardState, Identity, Incarnation, Index,
    Lane, Local, LogEntry, Manifest, Members, Mode, POLICY_VERSION, Payload, PeerId, Phase, Pin, PinOptions,
    PinType, PinsetView, Policy, QueueKey, RaftId, Rebalance, RebalanceSettings, Recovered, Replicas, Scope,
    SnapshotId, StoreOp, Term, Timestamp, Window, decode, encode, encode_for_version,
};
use ipfs_cluster_service::store::{OpenError, OpenOptions, Store};
use proptest::prelude::*;

/// Content of a disk: `sim::twin::Content` with the types of the daemon's core.
type Content = (
    HardState,
    (Index, Term),
    Vec<LogEntry>,
    Applied,
    Members,
    Vec<Window>,
    bool,
    Policy,
    Vec<Pin>,
    Vec<(Cid, Local)>,
    Vec<QueueKey>,
);

const ALL: usize = 1_000_000;
const LANES: [Lane; 4] = [Lane::Unpin, Lane::Fresh, Lane::Retry, Lane::Surplus];

/// One step: a batch or a fault. Numbers are reduced to valid ranges.
#[derive(Debug, Clone)]
struct Turn {
    append: u64,
    overwrite: bool,
    apply: u64,
    pins: Vec<(u8, bool)>,
    locals: Vec<(u8, bool)>,
    queue: Vec<(u8, u8)>,
    window: Option<u8>,
    compact: bool,
    after: After,
}

#[derive(Debug, Clone)]
enum After {
    Nothing,
    Sync,
    Restart,
    /// A power cut after this share of the unsynced writes, in thousandths.
    Cut(u64),
    Install(u8),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let after = prop_oneof![
        6 => Just(After::Nothing),
        2 => Just(After::Sync),
        1 => Just(After::Restart),
        2 => (0..=1000_u64).prop_map(After::Cut),
        1 => (0..12_u8).prop_map(After::Install),
    ];
    let some = |most| proptest::collection::vec((0..20_u8, any::<bool>()), 0..most);
    let queue = proptest::collection::vec((0..9_u8, any::<u8>()), 0..4);
    let window = proptest::option::of(0..9_u8);
    let numbers = (0..5_u64, any::<bool>(), 0..4_u64, any::<bool>());
    let turn = (numbers, some(4), some(4), queue, window, after).prop_map(
        |((append, overwrite, apply, compact), pins, locals, queue, window, after)| Turn {
            append,
            overwrite,
            apply,
            pins,
            locals,
            queue,
            window,
            compact,
            after,
        },
    );
    proptest::collection::vec(turn, 1..40)
}

fn peer(number: u8) -> PeerId {
    let bytes = [&[0x12, 32][..], &[number; 32]].concat();
    PeerId::from_bytes(&bytes).expect("a peer id")
}

fn cid(number: u8) -> Cid {
    Cid::from_bytes(&[1, 0x55, 0, 2, 7, number]).expect("a CID")
}

fn members() -> Members {
    Members::initial([peer(0), peer(1), peer(2)])
}

fn pin(number: u8, version: Index) -> Pin {
    Pin {
        cid: cid(number),
        pin_type: PinType::Data,
        allocations: vec![peer(number % 3)],
        reference: None,
        options: PinOptions {
            replicas: Replicas::Range { min: 1, max: 2 },
            name: format!("pin {}", number % 5),
            mode: Mode::Recursive,
            shard_size: 0,
            user_allocations: Vec::new(),
            expire_at: version.is_multiple_of(2).then_some(Timestamp(version)),
            metadata: BTreeMap::new(),
            pin_update: None,
            origins: Vec::new(),
        },
        timestamp: Timestamp(version),
        version,
    }
}

/// Returns a policy with up to three credentials and a drain.
fn policy(number: u8) -> Policy {
    let credential = |id: u8| Credential {
        id: CredentialId(u64::from(id)),
        name: format!("credential {id}"),
        hash: [number; 32],
        scopes: [Scope::Read].into(),
        created: Timestamp(1),
        expire_at: None,
        limits: Vec::new(),
    };
    let drain = Drain {
        peer: peer(number),
        since: Timestamp(1),
        pins: 3,
        moves_max: 5,
    };
    Policy {
        credentials: (0..number % 4).map(credential).collect(),
        drains: number.is_multiple_of(3).then_some(drain).into_iter().collect(),
        rebalance: Rebalance {
            settings: RebalanceSettings {
                automatic: number.is_multiple_of(2),
                ..RebalanceSettings::default()
            },
            run: None,
        },
    }
}

fn entry(index: Index, term: Term) -> LogEntry {
    LogEntry {
        index,
        term,
        payload: Payload::Commands(vec![7; 40]),
    }
}

/// Model of the written state, from which valid batches are generated.
#[derive(Debug, Clone)]
struct Known {
    compacted: (Index, Term),
    log: Vec<LogEntry>,
    applied: Applied,
    term: Term,
    pins: BTreeMap<Cid, Pin>,
    locals: BTreeSet<Cid>,
    queue: BTreeSet<QueueKey>,
}

impl Known {
    fn of(content: &Content) -> Self {
        Self {
            compacted: content.1,
            log: content.2.clone(),
            applied: content.3,
            term: content.0.term,
            pins: content
                .8
                .iter()
                .map(|pin| (pin.cid.clone(), pin.clone()))
                .collect(),
            locals: content.9.iter().map(|(cid, _)| cid.clone()).collect(),
            queue: content.10.iter().cloned().collect(),
        }
    }

    fn last(&self) -> Index {
        self.log.last().map_or(self.compacted.0, |entry| entry.index)
    }

    fn term_of(&self, index: Index) -> Term {
        let found = self.log.iter().find(|entry| entry.index == index);
        found.map_or(self.compacted.1, |entry| entry.term)
    }

    /// Returns the writes of a step, all of which are valid.
    fn ops(&mut self, turn: &Turn) -> Vec<StoreOp> {
        let mut ops = Vec::new();
        if turn.append > 0 {
            let rewrites = turn.overwrite && self.last() > self.applied.index;
            let first = self.last() + u64::from(!rewrites);
            self.term += u64::from(rewrites);
            let entries: Vec<LogEntry> = (first..first + turn.append)
                .map(|index| entry(index, self.term))
                .collect();
            self.log.retain(|entry| entry.index < first);
            self.log.extend(entries.clone());
            ops.push(StoreOp::Append { entries });
        }
        let index = (self.applied.index + turn.apply).min(self.last());
        for (number, put) in &turn.pins {
            ops.extend(self.pin_op(*number, *put, index));
        }
        for (number, put) in &turn.locals {
            ops.extend(self.local_op(*number, *put));
        }
        for (number, at) in &turn.queue {
            let (lane, at) = (LANES[usize::from(at % 4)], u64::from(at / 4));
            let key = QueueKey {
                lane,
                at,
                cid: cid(*number),
            };
            ops.push(if self.queue.remove(&key) {
                StoreOp::Dequeue { key }
            } else {
                self.queue.insert(key.clone());
                StoreOp::Enqueue { key }
            });
        }
        if let Some(number) = turn.window {
            let window = Window {
                origin: RaftId(u64::from(number % 3) + 1),
                boot: 1,
                high: u64::from(number),
                missing: (0..u64::from(number % 4)).collect(),
            };
            ops.push(StoreOp::PutWindow { window });
            let reconciling = number % 2 == 0;
            ops.push(StoreOp::SetReconciling { reconciling });
            let policy = policy(number);
            ops.push(StoreOp::SetPolicy { policy });
        }
        self.applied = Applied {
            index,
            term: self.term_of(index),
            pins: self.pins.len() as u64,
        };
        let hard_state = HardState {
            identity: Identity::Known(RaftId(1)),
            term: self.term,
            vote: Some(RaftId(2)),
            commit: index,
        };
        ops.push(StoreOp::SetHardState { hard_state });
        ops.push(StoreOp::SetApplied {
            applied: self.applied,
        });
        if turn.compact && index > self.compacted.0 {
            let term = self.term_of(index);
            self.log.retain(|entry| entry.index > index);
            self.compacted = (index, term);
            ops.push(StoreOp::Compact { index, term });
        }
        ops
    }

    fn pin_op(&mut self, number: u8, put: bool, version: Index) -> Option<StoreOp> {
        if put {
            let pin = pin(number, version);
            let previous = self.pins.insert(pin.cid.clone(), pin.clone()).map(Box::new);
            return Some(StoreOp::PutPin { pin, previous });
        }
        let pin = self.pins.remove(&cid(number))?;
        Some(StoreOp::DeletePin { pin })
    }

    fn local_op(&mut self, number: u8, put: bool) -> Option<StoreOp> {
        let cid = cid(number);
        if put {
            self.locals.insert(cid.clone());
            let local = Local {
                phase: Phase::Lost,
                mode: Mode::Direct,
                attempts: u32::from(number),
                error: "why".repeat(usize::from(number)),
                since: Timestamp(u64::from(number)),
                queued: None,
            };
            return Some(StoreOp::PutLocal { cid, local });
        }
        self.locals.remove(&cid).then_some(StoreOp::DeleteLocal { cid })
    }
}

/// The simulated and the real disk.
struct Twins {
    folder: tempfile::TempDir,
    /// Number of power cuts of the real disk; each continues in a new folder.
    cuts: usize,
    simulated: sim::twin::Disk,
    real: Option<Store>,
    /// Durable bytes of the journal.
    durable: u64,
    batches: u64,
}

impl Twins {
    fn new() -> Self {
        let folder = in_memory();
        let mut real = open(&folder.path().join("0")).expect("opens");
        let founding = Recovered::founding(Incarnation(1), members());
        real.initialise(&founding).expect("founds");
        real.sync().expect("syncs");
        let mut twins = Self {
            simulated: sim::twin::Disk::founded(&encode(&members())).expect("founds"),
            folder,
            cuts: 0,
            real: Some(real),
            durable: 0,
            batches: 0,
        };
        twins.durable = twins.written();
        twins
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(self.cuts.to_string())
    }

    fn real(&mut self) -> &mut Store {
        self.real.as_mut().expect("is open")
    }

    /// Returns the end of the journal's content.
    fn written(&self) -> u64 {
        let bytes = std::fs::read(journal(&self.path())).expect("reads");
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        // The last record ends in a checksum, which may end in zeros.
        bytes.len().min(end + 16) as u64
    }

    fn write(&mut self, ops: Vec<StoreOp>) {
        self.batches += 1;
        let id = BatchId(self.batches);
        let batch = Batch { id, ops, sync: true };
        self.simulated.write(&encode(&batch)).expect("makes sense");
        self.real().write(&batch).expect("writes");
    }

    fn sync(&mut self) {
        self.real().sync().expect("syncs");
        self.simulated.sync();
        self.durable = self.written();
    }

    fn install(&mut self, number: u8, known: &Known) {
        let pins: Vec<Pin> = (0..number).map(|number| pin(number, 9)).collect();
        let policy = policy(number);
        let index = known.last() + u64::from(number);
        let manifest = Manifest {
            applied: Applied {
                index,
                term: known.term,
                pins: pins.len() as u64,
            },
            members: members(),
            windows: Vec::new(),
        };
        let staged = self
            .simulated
            .stage(&encode(&manifest), &encode(&pins), &encode(&policy))
            .expect("stages");
        let snapshot = SnapshotId(staged);
        let mut staging = self
            .real()
            .stager()
            .stage(snapshot, manifest.clone())
            .expect("stages");
        if !policy.is_empty() {
            let chunk = encode_for_version(POLICY_VERSION, &policy);
            staging.push(&chunk).expect("takes all");
        }
        let mut chunk = vec![cluster_core::FIRST_VERSION];
        for pin in &pins {
            let bytes = encode(pin);
            chunk.extend_from_slice(&u32::try_from(bytes.len()).expect("is short").to_be_bytes());
            chunk.extend_from_slice(&bytes);
        }
        if !pins.is_empty() {
            staging.push(&chunk).expect("takes all");
        }
        staging.finish().expect("finishes");
        let hard_state = HardState {
            identity: Identity::Known(RaftId(1)),
            term: known.term,
            vote: None,
            commit: index,
        };
        self.write(vec![
            StoreOp::InstallSnapshot { snapshot, manifest },
            StoreOp::SetHardState { hard_state },
        ]);
        // On the simulated disk, a snapshot is written by the batch that installs it.
        self.sync();
    }

    /// Restarts the process. Its writes are in the page cache.
    fn restart(&mut self) {
        drop(self.real.take());
        self.reopen();
        self.sync();
    }

    fn reopen(&mut self) {
        let mut store = open(&self.path()).expect("opens");
        let recovered = store.recovered().expect("reads").expect("is founded");
        let real = content(&store, recovered);
        self.real = Some(store);
        assert_eq!(decoded(&self.simulated.content()), real);
    }

    /// Cuts the power: the journal keeps its synced bytes, and the first `share` of the rest.
    fn cut(&mut self, share: u64) {
        let end = self.written().max(self.durable);
        let kept = self.durable + (end - self.durable) * share / 1000;
        let before = self.path();
        self.cuts += 1;
        copy(&before, &self.path());
        drop(self.real.take());
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(journal(&self.path()))
            .expect("opens");
        file.set_len(kept).expect("is cut");
        let mut store = open(&self.path()).expect("a torn end is no damage");
        let recovered = store.recovered().expect("reads").expect("is founded");
        let real = content(&store, recovered);
        self.real = Some(store);
        // The state must be that of a prefix of the batches.
        let kept = (0..=self.simulated.unsynced()).find(|kept| {
            let mut twin = self.simulated.clone();
            twin.cut(*kept);
            decoded(&twin.content()) == real
        });
        let kept = kept.unwrap_or_else(|| {
            panic!("the state after a cut is that of no prefix of the batches: {real:?}");
        });
        self.simulated.cut(kept);
        self.sync();
    }

    fn compare(&mut self) {
        let simulated = decoded(&self.simulated.content());
        let view = self.real.as_ref().expect("is open").view();
        assert_eq!(simulated.8, view.pins(None, ALL));
        assert_eq!(simulated.9, view.locals(None, ALL));
        let queues: Vec<QueueKey> = LANES
            .iter()
            .flat_map(|lane| view.queue(*lane, None, ALL))
            .collect();
        assert_eq!(simulated.10, queues);
    }
}

/// Creates a folder, in memory if possible, because the disk itself is not tested.
fn in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    folder.expect("a folder")
}

fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open(path, &OpenOptions::default())
}

fn content(store: &Store, recovered: Recovered) -> Content {
    let view = store.view();
    (
        recovered.hard_state,
        recovered.compacted,
        recovered.log,
        recovered.applied,
        recovered.members,
        recovered.windows,
        recovered.reconciling,
        view.policy(),
        view.pins(None, ALL),
        view.locals(None, ALL),
        LANES
            .iter()
            .flat_map(|lane| view.queue(*lane, None, ALL))
            .collect(),
    )
}

fn decoded(bytes: &[u8]) -> Content {
    decode(bytes).expect("both cores write the same")
}

/// Returns the newest journal of the database in a folder.
fn journal(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder.join("db"))
        .expect("lists")
        .map(|file| file.expect("is there").path());
    let journals = files.filter(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    let number = |path: &PathBuf| {
        path.file_stem()
            .and_then(|stem| stem.to_str()?.parse::<u64>().ok())
    };
    journals.max_by_key(number).expect("there is a journal")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("makes");
    for file in std::fs::read_dir(from).expect("lists") {
        let file = file.expect("is there");
        let target = to.join(file.file_name());
        if file.file_type().expect("has one").is_dir() {
            copy(&file.path(), &target);
        } else {
            std::fs::copy(file.path(), &target).expect("copies");
        }
    }
}

fn play(turns: &[Turn]) -> Twins {
    let mut twins = Twins::new();
    for turn in turns {
        let mut known = Known::of(&decoded(&twins.simulated.content()));
        let ops = known.ops(turn);
        twins.write(ops);
        match turn.after {
            After::Nothing => {}
            After::Sync => twins.sync(),
            After::Restart => twins.restart(),
            After::Cut(share) => twins.cut(share),
            After::Install(number) => twins.install(number, &known),
        }
        twins.compare();
    }
    twins
}

const REGRESSIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../proptest-regressions/tests/disk.txt"
);

proptest! {
    #![proptest_config(super::few_cases(REGRESSIONS))]

    #[test]
    fn the_simulated_disk_has_the_content_of_the_store(turns in turns()) {
        play(&turns).restart();
    }

    #[test]
    fn a_flipped_bit_is_refused_or_changes_nothing(turns in turns(), place in any::<u64>(), bit in 0..8_u32) {
        let mut twins = play(&turns);
        twins.sync();
        let path = journal(&twins.path());
        drop(twins.real.take());
        let mut bytes = std::fs::read(&path).expect("reads");
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let at = usize::try_from(place % end as u64).expect("fits");
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, bytes).expect("writes");
        // A damaged folder of the simulated disk never opens; the real one may, if nothing is lost.
        if let Ok(mut store) = open(&twins.path()) {
            let recovered = store.recovered().expect("reads").expect("is founded");
            prop_assert_eq!(decoded(&twins.simulated.content()), content(&store, recovered));
        }
    }
}
