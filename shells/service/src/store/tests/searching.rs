//! Searches compared with a scan of all pins.

use cluster_core::owner_key;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::store::Reader;
use crate::store::{keys, record, search_index};

/// Names that differ in case only, share a start, have several bytes per character, or are longer than keys.
fn names() -> Vec<String> {
    let long = "Long ".repeat(150);
    let texts = [
        "",
        "a",
        "A",
        "ab",
        "Ab",
        "abc",
        "b",
        "Straße",
        "STRASSE",
        "ΟΔΟΣ",
        "οδος",
        "ΟΔΟΣΑ",
        "İ",
    ];
    let mut names: Vec<String> = texts.map(str::to_owned).into();
    names.extend([
        long.clone(),
        format!("{long}1"),
        format!("{long}2"),
        "x".repeat(3000),
    ]);
    names
}

fn texts() -> impl Strategy<Value = String> {
    let mut texts = names();
    texts.extend(["aB", "οδ", "ΟΔ", "long LONG", "x", "none"].map(str::to_owned));
    texts.push("long ".repeat(151));
    select(texts)
}

fn metadata() -> impl Strategy<Value = BTreeMap<String, String>> {
    let pair = (select(vec!["k", "l", "", "kk"]), select(vec!["", "v", "w", "kv"]));
    let owned = pair.prop_map(|(key, value)| (key.to_owned(), value.to_owned()));
    proptest::collection::btree_map(
        owned.clone().prop_map(|pair| pair.0),
        owned.prop_map(|pair| pair.1),
        0..3,
    )
}

fn times() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..6_u64, 1 => Just(u64::MAX)]
}

fn pins() -> impl Strategy<Value = Pin> {
    (0..20_u64, select(names()), metadata(), times(), 0..8_u8).prop_map(|(n, name, metadata, time, kind)| {
        let mut pin = pin(n, 1);
        pin.options.name = name;
        pin.options.metadata = metadata;
        if kind >= 4 {
            pin.options.metadata.insert(owner_key("ann"), String::new());
        }
        pin.options.replicas = match kind % 4 {
            3 => Replicas::Everywhere,
            _ => pin.options.replicas,
        };
        pin.pin_type = if kind % 4 == 2 {
            PinType::Meta
        } else {
            PinType::Data
        };
        pin.timestamp = Timestamp(time);
        pin
    })
}

#[derive(Debug, Clone)]
struct Asked {
    by_owner: bool,
    name: Option<(Comparison, bool, String)>,
    metadata: BTreeMap<String, String>,
    after: Option<u64>,
    before: Option<u64>,
    holder: Option<u8>,
    only_data: bool,
    order: Order,
    limit: usize,
}

impl Asked {
    fn search(&self) -> Search {
        let name = self.name.as_ref();
        Search {
            owner: self.by_owner.then(|| "ann".to_owned()),
            name: name.map(|(comparison, ignore, text)| NameMatch::new(*comparison, *ignore, text)),
            metadata: self.metadata.clone(),
            after: self.after.map(Timestamp),
            before: self.before.map(Timestamp),
            holder: self.holder.map(peer),
            types: self.only_data.then(|| [PinType::Data].into()),
            order: self.order,
        }
    }

    fn fits(&self, pin: &Pin) -> bool {
        let name_fits = self.name.as_ref().is_none_or(|(comparison, ignore, text)| {
            let fold = |text: &str| match ignore {
                true => text.to_lowercase().replace('ς', "σ"),
                false => text.to_owned(),
            };
            let (name, text) = (fold(&pin.options.name), fold(text));
            match comparison {
                Comparison::Exact => name == text,
                Comparison::Prefix => name.starts_with(&text),
                Comparison::Partial => name.contains(&text),
            }
        });
        let holder_fits = self.holder.is_none_or(|number| {
            pin.options.replicas == Replicas::Everywhere || pin.allocations.contains(&peer(number))
        });
        let pairs = &pin.options.metadata;
        name_fits
            && (!self.by_owner || pairs.contains_key(&owner_key("ann")))
            && holder_fits
            && self
                .metadata
                .iter()
                .all(|(key, value)| pairs.get(key) == Some(value))
            && self.after.is_none_or(|after| pin.timestamp.0 > after)
            && self.before.is_none_or(|before| pin.timestamp.0 < before)
            && (!self.only_data || pin.pin_type == PinType::Data)
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let comparison = select(vec![Comparison::Exact, Comparison::Prefix, Comparison::Partial]);
    let name = proptest::option::of((comparison, any::<bool>(), texts()));
    let time = || proptest::option::weighted(0.3, times());
    let rest = (
        proptest::option::weighted(0.2, 0..5_u8),
        (proptest::bool::weighted(0.2), proptest::bool::weighted(0.3)),
        select(vec![Order::Cid, Order::Newest, Order::Oldest]),
        1..8_usize,
    );
    (name, metadata(), time(), time(), rest).prop_map(
        |(name, metadata, after, before, (holder, (only_data, by_owner), order, limit))| Asked {
            by_owner,
            name,
            metadata,
            after,
            before,
            holder,
            only_data,
            order,
            limit,
        },
    )
}

/// Compares all pages and the count of a search with the pins that match.
pub(super) fn compare(listing: &Listing, pins: &[Pin], search: &Search, limit: usize) {
    let mut expected: Vec<Pin> = pins.iter().filter(|pin| search.matches(pin)).cloned().collect();
    match search.order {
        Order::Cid => expected.sort_by(|a, b| a.cid.cmp(&b.cid)),
        Order::Oldest => expected.sort_by_key(Position::of),
        Order::Newest => expected.sort_by_key(|pin| std::cmp::Reverse(Position::of(pin))),
    }
    let mut from = None;
    let mut found = Vec::new();
    loop {
        let page = listing.page(search, from.as_ref(), limit).expect("reads");
        assert!(page.pins.len() <= limit);
        found.extend(page.pins);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(found, expected, "{search:?}");
}

/// Compares the counts of searches with the numbers of pins that match.
fn compare_counts(reader: &Reader, pins: &BTreeMap<Cid, Pin>, searches: &[Asked]) {
    for asked in searches {
        let expected = pins.values().filter(|pin| asked.fits(pin)).count() as u64;
        assert_eq!(
            reader.count(&asked.search()).expect("reads"),
            expected,
            "{asked:?}"
        );
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(Pin),
    Remove(u64),
    Snapshot(Vec<Pin>),
    Import(Vec<Pin>),
    /// A batch of a release that does not know the index.
    Forget(Pin),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let many = || proptest::collection::vec(pins(), 0..20);
    let step = prop_oneof![
        12 => pins().prop_map(Step::Put),
        4 => (0..20_u64).prop_map(Step::Remove),
        1 => many().prop_map(Step::Snapshot),
        1 => many().prop_map(Step::Import),
        1 => pins().prop_map(Step::Forget),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

struct Run {
    folder: tempfile::TempDir,
    store: Option<Store>,
    pins: BTreeMap<Cid, Pin>,
    number: u64,
}

impl Run {
    fn store(&mut self) -> &mut Store {
        self.store.as_mut().expect("open")
    }

    fn write(&mut self, mut ops: Vec<StoreOp>) {
        self.number += 1;
        let head = self.store().head.clone().expect("founded");
        let pins = self.pins.len() as u64;
        ops.push(StoreOp::SetApplied {
            applied: Applied { pins, ..head.applied },
        });
        let batch = batch(self.number, ops);
        self.store().write(&batch).expect("writes");
    }

    fn put(&mut self, pin: &Pin) {
        let previous = self.pins.insert(pin.cid.clone(), pin.clone()).map(Box::new);
        let pin = pin.clone();
        self.write(vec![StoreOp::PutPin { pin, previous }]);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(pin) => self.put(pin),
            Step::Remove(n) => {
                if let Some(pin) = self.pins.remove(&cid(*n)) {
                    self.write(vec![StoreOp::DeletePin { pin }]);
                }
            }
            Step::Snapshot(pins) => self.install(pins),
            Step::Import(pins) => {
                self.set(pins);
                let mut replacing = self.store().new_pinset().expect("starts");
                pins.iter()
                    .for_each(|pin| replacing.put(pin, &encode(pin)).expect("puts"));
                let counts = replacing.finish().expect("finishes");
                assert_eq!(counts.pins, self.pins.len() as u64);
                let recovered = recovered(self.store(), counts.pins);
                self.store()
                    .reinitialise(&recovered, Some(replacing))
                    .expect("replaces");
            }
            Step::Forget(pin) => {
                self.put(pin);
                forget_entries(self.store());
                self.reopen();
                assert!(!self.store().shared.db.keyspace_exists("search.1000"));
            }
            Step::Reopen => self.reopen(),
        }
    }

    fn set(&mut self, pins: &[Pin]) {
        self.pins = pins.iter().map(|pin| (pin.cid.clone(), pin.clone())).collect();
    }

    fn install(&mut self, pins: &[Pin]) {
        self.set(pins);
        self.number += 1;
        let sorted: Vec<Pin> = self.pins.values().cloned().collect();
        let head = self.store().head.clone().expect("founded");
        let mut applied = Applied {
            pins: sorted.len() as u64,
            ..head.applied
        };
        applied.index += 1;
        let manifest = Manifest {
            applied,
            members: Members::initial([peer(7)]),
            windows: Vec::new(),
        };
        let snapshot = SnapshotId(self.number);
        let staged = self.store().stager().stage(snapshot, manifest.clone());
        let mut staging = staged.expect("stages");
        staging::push_all(&mut staging, &sorted).expect("takes all");
        staging.finish().expect("finishes");
        let hard_state = HardState {
            commit: applied.index,
            ..head.hard_state
        };
        let ops = vec![
            StoreOp::InstallSnapshot { snapshot, manifest },
            StoreOp::SetHardState { hard_state },
        ];
        let batch = batch(self.number, ops);
        self.store().write(&batch).expect("installs");
    }

    fn reopen(&mut self) {
        drop(self.store.take());
        self.store = Some(open(&self.folder.path().join("raft")));
    }
}

fn recovered(store: &Store, pins: u64) -> Recovered {
    let applied = store.head.as_ref().expect("founded").applied;
    let mut recovered = founding();
    recovered.applied = Applied { pins, ..applied };
    recovered.compacted = (applied.index, applied.term);
    recovered.hard_state.commit = applied.index;
    recovered
}

/// Returns the entries of the search index in the order of their keys.
fn index_entries(store: &Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let spaces = [b"m", b"n", b"t"].map(|start| store.generation.search.of(start));
    let entries = spaces.into_iter().flat_map(|space| space.iter());
    let entries = entries.map(|guard| guard.into_inner().expect("reads"));
    entries
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

/// Leaves the folder as after a batch of the first release: the entries of the last one are missing, and
/// those of a removed pin are there. A rebuild was killed, which left its keyspace.
fn forget_entries(store: &mut Store) {
    let meta = &store.shared.fixed.meta;
    let mut head = store.head.clone().expect("founded");
    head.seq += 1;
    let mut batch = store.shared.db.batch();
    for (key, _) in index_entries(store) {
        batch.remove(store.generation.search.of(&key), key);
    }
    let stale = pin(77, 1);
    batch.insert(&store.generation.pins, stale.cid.as_bytes(), encode(&stale));
    for (key, value) in search_index::entries(&stale) {
        batch.insert(store.generation.search.of(&key), key, value);
    }
    batch.remove(&store.generation.pins, stale.cid.as_bytes());
    batch.insert(meta, keys::HEAD, record::seal(keys::HEAD, &head));
    batch.insert(
        &store.generation.index,
        [&[keys::BY_NAME][..], b"old name"].concat(),
        [],
    );
    batch.commit().expect("writes");
    let started = fjall::KeyspaceCreateOptions::default;
    let partial = store.shared.db.keyspace("search.1000", started).expect("starts");
    let (key, value) = search_index::entries(&pin(88, 1)).remove(0);
    partial.insert(key, value).expect("writes");
    store.head = Some(head);
}

fn run() -> Run {
    let (folder, store) = founded();
    Run {
        folder,
        store: Some(store),
        pins: BTreeMap::new(),
        number: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn searches_find_what_a_scan_finds(
        steps in steps(),
        searches in proptest::collection::vec(asked(), 1..30),
    ) {
        let mut run = run();
        for step in &steps {
            run.step(step);
            compare_counts(&run.store().reader(), &run.pins, &searches);
        }
        let pins: Vec<Pin> = run.pins.values().cloned().collect();
        let listing = run.store().reader().listing();
        for asked in &searches {
            let search = asked.search();
            for pin in &pins {
                prop_assert_eq!(search.matches(pin), asked.fits(pin), "{:?} {:?}", asked, pin);
            }
            compare(&listing, &pins, &search, asked.limit);
        }
        // The index has the entries of these pins, and no others.
        let mut expected: Vec<_> = pins.iter().flat_map(search_index::entries).collect();
        expected.sort();
        prop_assert_eq!(index_entries(run.store()), expected);
    }
}

fn named(n: u64, name: &str) -> Pin {
    let mut pin = pin(n, 1);
    pin.options.name = name.to_owned();
    pin.timestamp = Timestamp(n);
    pin
}

#[test]
fn pages_stay_in_order_while_pins_change() {
    let mut run = run();
    (10..30).for_each(|n| run.put(&named(n, "page")));
    let search = Search {
        name: Some(NameMatch::new(Comparison::Exact, false, "page")),
        order: Order::Newest,
        ..Search::default()
    };
    let first = run.store().reader().listing().page(&search, None, 5).unwrap();
    let times = |pins: &[Pin]| pins.iter().map(|pin| pin.timestamp.0).collect::<Vec<_>>();
    assert_eq!(times(&first.pins), [29, 28, 27, 26, 25]);
    // Newer pins, the pin at the end of the page and the next one change.
    run.put(&named(40, "page"));
    run.step(&Step::Remove(25));
    run.put(&named(24, "other"));
    let second = run
        .store()
        .reader()
        .listing()
        .page(&search, first.next.as_ref(), 5)
        .unwrap();
    assert_eq!(times(&second.pins), [23, 22, 21, 20, 19]);
    let last = run
        .store()
        .reader()
        .listing()
        .page(&search, second.next.as_ref(), 100)
        .unwrap();
    assert_eq!((last.pins.len(), last.next), (9, None));
}

#[test]
fn work_of_a_page_is_bounded_and_the_next_one_continues() {
    let mut run = run();
    let mut pins: Vec<Pin> = (0..45_000).map(|n| named(n, &format!("Photo {n}"))).collect();
    pins[7] = named(7, "needle in the stack");
    run.step(&Step::Import(pins.clone()));
    let listing = run.store().reader().listing();
    let search = |comparison, text: &str| Search {
        name: Some(NameMatch::new(comparison, true, text)),
        order: Order::Newest,
        ..Search::default()
    };
    let rare = search(Comparison::Partial, "IN THE");
    let (mut pages, mut from, mut found) = (0, None, Vec::new());
    loop {
        let page = listing.page(&rare, from.as_ref(), 10).unwrap();
        pages += 1;
        found.extend(page.pins);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!((pages, found), (3, vec![named(7, "needle in the stack")]));
    assert_eq!(run.store().reader().count(&rare).unwrap(), 1);
    // One page suffices for a start of names, rare or common.
    let prefix = listing
        .page(&search(Comparison::Prefix, "need"), None, 10)
        .unwrap();
    assert_eq!((prefix.pins.len(), prefix.next), (1, None));
    let mut common = search(Comparison::Prefix, "photo 1");
    common.order = Order::Oldest;
    let page = listing.page(&common, None, 3).unwrap();
    let times: Vec<u64> = page.pins.iter().map(|pin| pin.timestamp.0).collect();
    assert_eq!(times, [1, 10, 11]);
    assert_eq!(run.store().reader().count(&common).unwrap(), 11_111);
}

#[test]
fn smallest_of_several_conditions_is_read() {
    let mut run = run();
    let pins = (0..20_000).map(|n| {
        let mut pin = named(n, "name");
        let few = (n % 8 == 0).then(|| ("few".to_owned(), "yes".to_owned()));
        pin.options.metadata = [("app".to_owned(), "all".to_owned())]
            .into_iter()
            .chain(few)
            .collect();
        pin
    });
    let pins: Vec<Pin> = pins.collect();
    run.step(&Step::Import(pins.clone()));
    let search = Search {
        metadata: [("app", "all"), ("few", "yes")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        order: Order::Newest,
        ..Search::default()
    };
    // Both have more entries than are compared; few are examined in vain.
    let page = run.store().reader().listing().page(&search, None, 1000).unwrap();
    assert_eq!(page.pins.len(), 1000);
    assert_eq!(run.store().reader().count(&search).unwrap(), 2_500);
}

#[test]
fn index_that_contradicts_the_pins_is_rebuilt_at_the_next_start() {
    let mut run = run();
    (0..5).for_each(|n| run.put(&named(n, "name")));
    let stale = named(9, "gone");
    let entries = search_index::entries(&stale);
    let mut batch = run.store().shared.db.batch();
    for (key, value) in entries {
        let search = &run.store.as_ref().unwrap().generation.search;
        batch.insert(search.of(&key), key, value);
    }
    batch.commit().unwrap();
    let search = Search {
        order: Order::Newest,
        ..Search::default()
    };
    let error = run.store().reader().listing().page(&search, None, 5).unwrap_err();
    assert!(error.to_string().contains("restart this peer"), "{error}");
    // Later batches do not make it trustworthy.
    run.put(&named(6, "name"));
    run.reopen();
    let pins: Vec<Pin> = run.pins.values().cloned().collect();
    compare(&run.store().reader().listing(), &pins, &search, 3);
    let number = run.store().generation.search_number;
    run.reopen();
    assert_eq!(run.store().generation.search_number, number, "it is built once");
}
