//! Row `leader`.

use std::time::{Duration, Instant};

use tests::{Cluster, cids};

use crate::load;
use crate::{Arguments, Figures};

pub(super) fn leader_killed(_: &Arguments) -> Figures {
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut cluster = Cluster::start();
        load::pin(&cluster.peers, 4, 0, 500);
        let leader = cluster.leader();
        let follower = (leader + 1) % 3;
        cluster.peers[leader].kill();
        let start = Instant::now();
        let cid = cids::identity("after the leader's death");
        while cluster.peers[follower]
            .ask("POST", &format!("/pins/{cid}"))
            .is_err()
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    vec![("median of 5, s", times[2]), ("longest of 5, s", times[4])]
}
