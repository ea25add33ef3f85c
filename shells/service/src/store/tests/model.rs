//! Random operations compared with a model in memory.

use proptest::prelude::*;

use super::*;
use cluster_core::{Policy, RaftId, Window};

/// Expected contents of the store.
struct Model {
    recovered: Recovered,
    pins: BTreeMap<Cid, Pin>,
    locals: BTreeMap<Cid, Local>,
    queue: BTreeSet<QueueKey>,
    policy: Policy,
}

fn policy(n: u8) -> Policy {
    Policy {
        credentials: (0..u64::from(n % 4)).map(credential).collect(),
        ..Policy::default()
    }
}

impl Model {
    fn last(&self) -> Index {
        self.recovered.compacted.0 + self.recovered.log.len() as u64
    }

    fn apply(&mut self, op: &StoreOp, staged: &[Pin]) {
        let state = &mut self.recovered;
        match op.clone() {
            StoreOp::Append { entries } => {
                let first = entries[0].index;
                state.log.retain(|entry| entry.index < first);
                state.log.extend(entries);
            }
            StoreOp::Compact { index, term } => {
                state.log.retain(|entry| entry.index > index);
                state.compacted = (index, term);
            }
            StoreOp::DeleteLocal { cid } => drop(self.locals.remove(&cid)),
            StoreOp::DeletePin { pin } => drop(self.pins.remove(&pin.cid)),
            StoreOp::Dequeue { key } => drop(self.queue.remove(&key)),
            StoreOp::Enqueue { key } => drop(self.queue.insert(key)),
            StoreOp::InstallSnapshot { manifest, .. } => {
                state.log.clear();
                state.compacted = (manifest.applied.index, manifest.applied.term);
                state.applied = manifest.applied;
                state.members = manifest.members;
                state.windows = manifest.windows;
                self.policy = Policy::default();
                self.pins = staged.iter().map(|pin| (pin.cid.clone(), pin.clone())).collect();
            }
            StoreOp::PutLocal { cid, local } => drop(self.locals.insert(cid, local)),
            StoreOp::PutPin { pin, .. } => drop(self.pins.insert(pin.cid.clone(), pin)),
            StoreOp::PutWindow { window } => {
                state.windows.retain(|other| other.origin != window.origin);
                state.windows.push(window);
                state.windows.sort_by_key(|window| window.origin);
            }
            StoreOp::SetApplied { applied } => state.applied = applied,
            StoreOp::SetPolicy { policy } => self.policy = policy,
            StoreOp::SetHardState { hard_state } => state.hard_state = hard_state,
            StoreOp::SetMembers { members } => state.members = members,
            StoreOp::SetReconciling { reconciling } => state.reconciling = reconciling,
        }
    }
}

/// One step, whose number is adapted to the current contents.
#[derive(Debug, Clone)]
enum Step {
    Append(u8, u8),
    Commit(u8),
    Compact(u8),
    Pin(u8, u8),
    Unpin(u8),
    Local(u8),
    DeleteLocal(u8),
    Enqueue(u8, u8),
    Dequeue(u8),
    Window(u8),
    Members(u8),
    Policy(u8),
    Reconciling(bool),
    Install(u8, u8),
    EndBatch,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<(u8, u8)>().prop_map(|(n, back)| Step::Append(n, back)),
        3 => any::<u8>().prop_map(Step::Commit),
        2 => any::<u8>().prop_map(Step::Compact),
        8 => any::<(u8, u8)>().prop_map(|(n, v)| Step::Pin(n, v)),
        4 => any::<u8>().prop_map(Step::Unpin),
        4 => any::<u8>().prop_map(Step::Local),
        2 => any::<u8>().prop_map(Step::DeleteLocal),
        4 => any::<(u8, u8)>().prop_map(|(n, at)| Step::Enqueue(n, at)),
        4 => any::<u8>().prop_map(Step::Dequeue),
        1 => any::<u8>().prop_map(Step::Window),
        1 => any::<u8>().prop_map(Step::Members),
        1 => any::<u8>().prop_map(Step::Policy),
        1 => any::<bool>().prop_map(Step::Reconciling),
        1 => any::<(u8, u8)>().prop_map(|(n, from)| Step::Install(n, from)),
        8 => Just(Step::EndBatch),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..150)
}

struct Run {
    folder: tempfile::TempDir,
    store: Option<Store>,
    model: Model,
    ops: Vec<StoreOp>,
    batches: u64,
    snapshots: u64,
}

impl Run {
    fn new() -> Self {
        let (folder, store) = founded();
        Self {
            folder,
            store: Some(store),
            model: Model {
                recovered: founding(),
                pins: BTreeMap::new(),
                locals: BTreeMap::new(),
                queue: BTreeSet::new(),
                policy: Policy::default(),
            },
            ops: Vec::new(),
            batches: 0,
            snapshots: 0,
        }
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().expect("open")
    }

    fn op(&mut self, op: StoreOp) {
        self.model.apply(&op, &[]);
        self.ops.push(op);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(n, back) => self.append(n, back),
            Step::Commit(n) => self.commit(n),
            Step::Compact(n) => {
                let (from, to) = (
                    self.model.recovered.compacted.0,
                    self.model.recovered.applied.index,
                );
                let index = from + u64::from(n) % (to - from + 1);
                let entry = self.model.recovered.log.iter().find(|entry| entry.index == index);
                let term = entry.map_or(self.model.recovered.compacted.1, |entry| entry.term);
                self.op(StoreOp::Compact { index, term });
            }
            Step::Pin(n, version) => {
                let pin = pin(u64::from(n % 40), u64::from(version));
                let previous = self.model.pins.get(&pin.cid).cloned().map(Box::new);
                self.op(StoreOp::PutPin { pin, previous });
            }
            Step::Unpin(n) => {
                let found = self.model.pins.get(&cid(u64::from(n % 40))).cloned();
                found
                    .into_iter()
                    .for_each(|pin| self.op(StoreOp::DeletePin { pin }));
            }
            Step::Local(n) => {
                let (cid, local) = (cid(u64::from(n % 50)), local(u64::from(n)));
                self.op(StoreOp::PutLocal { cid, local });
            }
            Step::DeleteLocal(n) => self.op(StoreOp::DeleteLocal {
                cid: cid(u64::from(n % 50)),
            }),
            Step::Enqueue(n, at) => {
                let lane = [Lane::Unpin, Lane::Fresh, Lane::Retry][usize::from(at % 3)];
                let key = QueueKey {
                    lane,
                    at: u64::from(at / 3),
                    cid: cid(u64::from(n % 9)),
                };
                // The core queues nothing twice.
                if !self.model.queue.contains(&key) {
                    self.op(StoreOp::Enqueue { key });
                }
            }
            Step::Dequeue(n) => {
                // Mostly from the front, as the tracker does.
                let at = if n < 200 {
                    0
                } else {
                    usize::from(n) % self.model.queue.len().max(1)
                };
                let key = self.model.queue.iter().nth(at).cloned();
                key.into_iter().for_each(|key| self.op(StoreOp::Dequeue { key }));
            }
            Step::Window(n) => self.op(StoreOp::PutWindow { window: window(n) }),
            Step::Members(n) => {
                let members = Members::initial((0..=n % 5).map(peer));
                self.op(StoreOp::SetMembers { members });
            }
            Step::Policy(n) => self.op(StoreOp::SetPolicy { policy: policy(n) }),
            Step::Reconciling(reconciling) => self.op(StoreOp::SetReconciling { reconciling }),
            Step::Install(n, ahead) => self.install(n, ahead),
            Step::EndBatch => self.end_batch(),
            Step::Reopen => self.reopen(),
        }
    }

    fn append(&mut self, n: u8, back: u8) {
        let first_free = self.model.recovered.hard_state.commit + 1;
        let last = self.model.last();
        let first = last + 1 - u64::from(back) % (last + 2 - first_free);
        let state = &self.model.recovered;
        let before = state.log.last().map_or(state.compacted.1, |entry| entry.term);
        let term = before + u64::from(back % 2);
        let entries = (first..=first + u64::from(n % 8)).map(|index| entry(index, term));
        self.op(StoreOp::Append {
            entries: entries.collect(),
        });
    }

    fn commit(&mut self, n: u8) {
        let (commit, last) = (self.model.recovered.hard_state.commit, self.model.last());
        let commit = commit + u64::from(n) % (last - commit + 1);
        let hard_state = HardState {
            identity: cluster_core::Identity::Known(cluster_core::RaftId(1)),
            term: u64::from(n),
            vote: Some(RaftId(2)),
            commit,
        };
        self.op(StoreOp::SetHardState { hard_state });
        let pins = self.model.pins.len() as u64;
        self.op(StoreOp::SetApplied {
            applied: Applied {
                index: commit,
                term: 1,
                pins,
            },
        });
    }

    fn install(&mut self, n: u8, ahead: u8) {
        self.end_batch();
        let mut pins: Vec<Pin> = (0..u64::from(n % 30)).map(|m| pin(m, u64::from(n))).collect();
        pins.sort_by(|a, b| a.cid.cmp(&b.cid));
        let index = self.model.recovered.hard_state.commit + u64::from(ahead % 20);
        let state = &self.model.recovered;
        let manifest = Manifest {
            applied: Applied {
                index,
                term: state.log.last().map_or(state.compacted.1, |entry| entry.term),
                pins: pins.len() as u64,
            },
            members: Members::initial([peer(1), peer(n)]),
            windows: vec![window(n)],
        };
        self.snapshots += 1;
        let snapshot = SnapshotId(self.snapshots);
        let mut staging = self
            .store()
            .stager()
            .stage(snapshot, manifest.clone())
            .expect("stages");
        staging::push_all(&mut staging, &pins).expect("takes all");
        staging.finish().expect("finishes");
        if n.is_multiple_of(4) {
            return self.store().stager().discard(snapshot).expect("discards");
        }
        let commit = HardState {
            commit: index,
            ..self.model.recovered.hard_state
        };
        let op = StoreOp::InstallSnapshot { snapshot, manifest };
        self.model.apply(&op, &pins);
        self.ops.push(op);
        self.op(StoreOp::SetHardState { hard_state: commit });
    }

    fn end_batch(&mut self) {
        self.batches += 1;
        let batch = batch(self.batches, std::mem::take(&mut self.ops));
        self.store().write(&batch).expect("writes");
        if self.batches.is_multiple_of(3) {
            self.store().sync().expect("syncs");
        }
        self.compare();
    }

    fn reopen(&mut self) {
        self.end_batch();
        drop(self.store.take());
        let mut store = open(&self.folder.path().join("raft"));
        let recovered = store.recovered().expect("reads").expect("is founded");
        self.model.recovered.boot += 1;
        let mut expected = self.model.recovered.clone();
        expected.log.retain(|entry| entry.index > expected.compacted.0);
        assert_eq!(recovered, expected);
        self.store = Some(store);
        self.compare();
    }

    fn compare(&self) {
        let (model, store) = (&self.model, self.store.as_ref().expect("open"));
        let view = store.view();
        let pins: Vec<Pin> = model.pins.values().cloned().collect();
        assert_eq!(view.pins(None, 1000), pins);
        assert_eq!(view.policy(), model.policy);
        let middle = cid(20);
        let later: Vec<Pin> = pins
            .iter()
            .filter(|pin| pin.cid > middle)
            .take(3)
            .cloned()
            .collect();
        assert_eq!(view.pins(Some(&middle), 3), later);
        assert_eq!(view.pin(&middle), model.pins.get(&middle).cloned());
        assert_eq!(view.local(&middle), model.locals.get(&middle).cloned());
        let locals: Vec<_> = model.locals.clone().into_iter().collect();
        assert_eq!(view.locals(None, 1000), locals);
        for lane in [Lane::Unpin, Lane::Fresh, Lane::Retry] {
            let queue: Vec<_> = model
                .queue
                .iter()
                .filter(|key| key.lane == lane)
                .cloned()
                .collect();
            assert_eq!(view.queue(lane, None, 4), queue[..queue.len().min(4)]);
            if lane == Lane::Fresh {
                assert_eq!(store.reader().fresh_count().unwrap(), queue.len() as u64);
            }
            let from = QueueKey {
                lane,
                at: 30,
                cid: cid(4),
            };
            let later: Vec<_> = queue.iter().filter(|key| **key >= from).cloned().collect();
            assert_eq!(view.queue(lane, Some(&from), 1000), later);
        }
        let reader = store.reader().listing();
        for n in 0..6 {
            let holds = |pin: &&Pin| pin.allocations.contains(&peer(n));
            let held: Vec<_> = pins.iter().filter(holds).cloned().collect();
            let cids: Vec<_> = held.iter().map(|pin| pin.cid.clone()).collect();
            assert_eq!(view.allocated(&peer(n), None, 1000), cids);
            let later: Vec<_> = cids.into_iter().filter(|cid| *cid > middle).take(2).collect();
            assert_eq!(view.allocated(&peer(n), Some(&middle), 2), later);
            let listed: Vec<_> = reader.allocated(&peer(n)).map(Result::unwrap).collect();
            assert_eq!(listed, held);
        }
        for until in [999, 1_004, 1_020, u64::MAX] {
            let mut due: Vec<_> = pins
                .iter()
                .filter_map(|pin| Some((pin.options.expire_at?, &pin.cid)))
                .collect();
            due.retain(|(at, _)| at.0 <= until);
            due.sort();
            let due: Vec<Cid> = due.into_iter().map(|(_, cid)| cid.clone()).take(5).collect();
            assert_eq!(view.expiring(Timestamp(until), 5), due);
        }
        for name in ["", "pin 3", &format!("{}1", "long ".repeat(200))] {
            let search = Search {
                name: Some(NameMatch::new(Comparison::Exact, false, name)),
                order: Order::Oldest,
                ..Search::default()
            };
            searching::compare(&reader, &pins, &search, 7);
        }
        self.compare_rows();
    }

    fn compare_rows(&self) {
        let (rows, applied) = content(self.store.as_ref().expect("open")).expect("reads");
        let cids: BTreeSet<_> = self.model.pins.keys().chain(self.model.locals.keys()).collect();
        let expected = cids.into_iter().map(|cid| Row {
            cid: cid.clone(),
            pin: self.model.pins.get(cid).cloned(),
            local: self.model.locals.get(cid).cloned(),
        });
        assert_eq!(rows, expected.collect::<Vec<_>>());
        assert_eq!(applied, self.model.recovered.applied);
    }
}

fn window(n: u8) -> Window {
    Window {
        origin: RaftId(u64::from(n % 6)),
        boot: u64::from(n),
        high: u64::from(n) * 3,
        missing: (0..u64::from(n % 4)).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_matches_the_model(steps in steps()) {
        let mut run = Run::new();
        steps.iter().for_each(|step| run.step(step));
        run.reopen();
    }
}
