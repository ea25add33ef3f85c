//! Row `add`.

use std::time::Instant;

use tests::{Cluster, cids};

use crate::{Arguments, Figures};

/// Size of the file, in bytes.
const SIZE: usize = 300_000_000;

pub(super) fn add(_: &Arguments) -> Figures {
    let cluster = Cluster::start();
    let mut rates = Vec::new();
    for seed in 0..3 {
        let content = cids::bytes(seed, SIZE);
        let start = Instant::now();
        let query = "cid-version=1&replication-min=2&replication-max=2&stream-channels=false";
        cluster.peers[0]
            .add(query, &[("file", &content)])
            .expect("is added");
        rates.push(SIZE as f64 / 1e6 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    vec![("median of 3, MB/s", rates[1])]
}
