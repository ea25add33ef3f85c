//! Options that a seed draws.

use super::ranges::PEERS_MAX;
use super::{Options, REPLACE_NEVER_MS};
use crate::rng::Rng;

impl Options {
    /// Draws the options of `seed`.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "options");
        let mut options = Self::quiet(seed);
        options.draw_sizes(&mut rng);
        options.draw_faults(&mut rng);
        options.draw_clients(&mut rng);
        options.draw_config(&mut rng);
        options.draw_members(&mut Rng::new(seed, "members options"));
        options.draw_storage(&mut Rng::new(seed, "storage options"));
        options.draw_releases(&mut Rng::new(seed, "releases options"));
        options.draw_sending(&mut Rng::new(seed, "sending options"));
        options.draw_credentials(&mut Rng::new(seed, "credentials options"));
        options.draw_owners(&mut Rng::new(seed, "owners options"));
        options.draw_drains(&mut Rng::new(seed, "drain options"));
        options.draw_scrubs(&mut Rng::new(seed, "scrub options"));
        options.draw_rebalancing(&mut Rng::new(seed, "rebalance options"));
        options.draw_profile(&mut Rng::new(seed, "profile options"));
        options.draw_room(&mut Rng::new(seed, "room options"));
        options
    }

    /// Returns the options of three peers without faults.
    pub fn quiet(seed: u64) -> Self {
        Self {
            seed,
            peers: 3,
            clients: 2,
            cids: 20,
            seconds: 30,
            latency_min_ms: 1,
            latency_spread_ms: 5,
            outbox_messages: 1024,
            outbox_kib: 8192,
            frame_kib: 8192,
            entry_kib: 256,
            sync_min_us: 1000,
            sync_spread_us: 2000,
            restart_spread_ms: 3000,
            ipfs_slow_ms: 200,
            ipfs_late: 500,
            snapshot_chunk: 1000,
            think_ms: 500,
            patience_ms: 20_000,
            op_unpin: 250,
            op_read: 150,
            op_local: 50,
            op_recover: 30,
            op_repeat: 50,
            op_update: 50,
            op_replicas: 300,
            scrub_share: 200,
            to_leader: 300,
            tick_ms: 100,
            election_ticks: 10,
            trailing_logs: 10_000,
            log_kib: 32 << 10,
            shrink: 1,
            retry_ms: 1000,
            deadline_ms: 15_000,
            open_max: 4096,
            concurrent_pins: 10,
            pin_timeout_ms: 10_000,
            retry_min_ms: 1000,
            retry_max_ms: 10_000,
            compare_ms: 5000,
            metrics_ms: 5000,
            grace_ms: 20_000,
            failover: 1,
            voters_max: 7,
            replace_after_ms: REPLACE_NEVER_MS,
            groups: 1,
            replicas_max: 2,
            replicas_min: 1,
            ..Self::default()
        }
    }

    fn draw_sizes(&mut self, rng: &mut Rng) {
        self.peers = *rng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
        self.clients = rng.range(1, 6);
        self.joiners = if rng.chance(300) {
            *rng.pick(&[1, 1, 2, 4])
        } else {
            0
        };
        self.cids = *rng.pick(&[1, 3, 10, 40]);
        self.seconds = rng.range(15, 60);
    }

    /// Draws learners, and limits on voters, from their own stream.
    fn draw_members(&mut self, rng: &mut Rng) {
        if rng.chance(200) {
            self.learners = *rng.pick(&[1, 1, 2, 3, 8]);
        }
        // Thirty peers cost as much as a dozen runs with three.
        if rng.chance(12) {
            self.peers = *rng.pick(&[3, 5, 7]);
            self.learners = rng.range(8, PEERS_MAX - self.peers - self.joiners);
            self.seconds = self.seconds.min(20);
            self.clients = self.clients.min(3);
        }
        self.voters_max = *rng.pick(&[7, 7, 7, 3, 5]);
        self.replace_after_ms = *rng.pick(&[REPLACE_NEVER_MS, REPLACE_NEVER_MS, 20_000, 6000]);
    }

    fn draw_faults(&mut self, rng: &mut Rng) {
        let often = |rng: &mut Rng, low, high| if rng.chance(500) { rng.range(low, high) } else { 0 };
        self.loss = often(rng, 1, 200);
        self.duplicate = often(rng, 1, 300);
        self.reorder = often(rng, 1, 300);
        self.latency_min_ms = rng.range(1, 20);
        self.latency_spread_ms = *rng.pick(&[1, 5, 20, 80]);
        self.unreachable = often(rng, 100, 1000);
        self.partition_every = often(rng, 3, 20);
        self.swizzle_every = often(rng, 8, 30);
        self.sync_min_us = *rng.pick(&[100, 1000, 5000]);
        self.sync_spread_us = *rng.pick(&[100, 2000, 30_000]);
        self.sync_slow = often(rng, 1, 100);
        self.disk_fail_every = often(rng, 10, 60);
        self.disk_lost_every = often(rng, 10, 60);
        self.kill_every = often(rng, 3, 20);
        self.cut_every = often(rng, 3, 20);
        self.cut_all_every = often(rng, 10, 40);
        self.leader_kill_every = often(rng, 5, 20);
        self.pause_every = often(rng, 4, 20);
        self.aim = often(rng, 1, 40);
        self.restart_spread_ms = *rng.pick(&[200, 2000, 10_000]);
        self.leave_broken = often(rng, 200, 1000);
        self.drift_ppm = often(rng, 100, 30_000);
        self.clock_step_every = often(rng, 5, 30);
        self.ipfs_slow_ms = *rng.pick(&[10, 200, 3000]);
        self.ipfs_hang = often(rng, 1, 200);
        self.ipfs_fail = often(rng, 1, 300);
        self.ipfs_late = *rng.pick(&[0, 500, 1000]);
        self.ipfs_restart_every = often(rng, 5, 30);
        self.ipfs_full_every = often(rng, 10, 40);
        self.unavailable = if rng.chance(300) { rng.range(1, 2) } else { 0 };
        self.snapshot_lost = often(rng, 100, 500);
        self.snapshot_duplicate = often(rng, 100, 500);
    }

    fn draw_clients(&mut self, rng: &mut Rng) {
        self.think_ms = *rng.pick(&[20, 200, 1500]);
        self.patience_ms = *rng.pick(&[300, 3000, 30_000]);
        self.op_unpin = *rng.pick(&[0, 250, 450]);
        self.op_read = *rng.pick(&[50, 200]);
        self.op_local = *rng.pick(&[0, 50]);
        self.op_recover = *rng.pick(&[0, 50]);
        self.op_repeat = *rng.pick(&[0, 100]);
        self.op_expire = *rng.pick(&[0, 0, 150]);
        self.op_members = *rng.pick(&[0, 0, 5, 30]);
        self.op_replicas = *rng.pick(&[0, 300, 900]);
        self.to_leader = *rng.pick(&[0, 300, 1000]);
    }

    fn draw_config(&mut self, rng: &mut Rng) {
        self.tick_ms = *rng.pick(&[50, 100, 200]);
        self.election_ticks = *rng.pick(&[5, 10, 15]);
        self.trailing_logs = *rng.pick(&[0, 2, 20, 10_000]);
        self.retry_ms = *rng.pick(&[200, 1000, 4000]);
        self.deadline_ms = *rng.pick(&[2000, 15_000]);
        self.open_max = *rng.pick(&[2, 64, 4096]);
        self.concurrent_pins = *rng.pick(&[1, 3, 10]);
        self.pin_timeout_ms = *rng.pick(&[2000, 10_000]);
        self.retry_min_ms = *rng.pick(&[100, 1000]);
        self.retry_max_ms = *rng.pick(&[2000, 10_000]);
        self.metrics_ms = *rng.pick(&[300, 1000, 5000]);
        self.grace_ms = *rng.pick(&[200, 1000, 5000, 20_000]);
        self.failover = u64::from(rng.chance(800));
        self.replicas_max = rng.below(self.peers.min(3) + 1);
        self.replicas_min = if self.replicas_max == 0 {
            0
        } else {
            rng.range(1, self.replicas_max)
        };
    }

    /// Draws faults of disks and IPFS daemons, from their own stream.
    fn draw_storage(&mut self, rng: &mut Rng) {
        self.ipfs_forget_every = if rng.chance(300) { rng.range(5, 40) } else { 0 };
        self.compare_ms = *rng.pick(&[500, 3000, 20_000]);
        self.disk_full_every = if rng.chance(200) { rng.range(10, 60) } else { 0 };
        self.disk_rot_every = if rng.chance(200) { rng.range(10, 60) } else { 0 };
    }

    /// Draws peers of two releases.
    fn draw_releases(&mut self, rng: &mut Rng) {
        if rng.chance(200) {
            self.old = *rng.pick(&[300, 700, 1000]);
            self.upgrade_every = *rng.pick(&[0, 3, 10]);
            self.old_stay = u64::from(rng.chance(300));
        }
    }

    /// Changes of the credentials. Drawn from their own stream.
    fn draw_credentials(&mut self, rng: &mut Rng) {
        if rng.chance(150) {
            self.op_credentials = *rng.pick(&[20, 200]);
        }
    }

    /// Draws the rate of requests that act as an owner.
    fn draw_owners(&mut self, rng: &mut Rng) {
        if rng.chance(200) {
            self.op_owner = *rng.pick(&[100, 500, 900]);
        }
    }

    /// Draws drains, from their own stream.
    fn draw_drains(&mut self, rng: &mut Rng) {
        if rng.chance(200) {
            self.op_drain = *rng.pick(&[10, 50]);
        }
    }

    /// Draws repositories of limited size, for few pins: others would never fit.
    fn draw_room(&mut self, rng: &mut Rng) {
        let rate = if self.op_rebalance > 0 { 500 } else { 150 };
        if rng.chance(rate) && self.bulk == 0 && self.cids <= 40 {
            self.ipfs_room_gib = *rng.pick(&[400, 100, 50, 25, 12]);
        }
    }

    /// Draws changes of the rebalancing, from their own stream.
    fn draw_rebalancing(&mut self, rng: &mut Rng) {
        if rng.chance(200) {
            self.op_rebalance = *rng.pick(&[10, 50]);
        }
    }

    /// Draws scrubs, and rot for them, from their own stream.
    fn draw_scrubs(&mut self, rng: &mut Rng) {
        if rng.chance(200) {
            self.scrub_ms = *rng.pick(&[2000, 8000, 30_000]);
            self.scrub_share = *rng.pick(&[100, 300, 1000]);
            self.ipfs_rot_every = rng.range(3, 20);
            self.op_scrub = *rng.pick(&[0, 20, 100]);
        }
    }

    /// Draws outboxes, and sizes of messages and logs.
    fn draw_sending(&mut self, rng: &mut Rng) {
        self.streams = u64::from(rng.chance(400));
        self.gathers = u64::from(rng.chance(400));
        self.step_slow = if rng.chance(200) { rng.range(1, 50) } else { 0 };
        self.outbox_messages = *rng.pick(&[1024, 1024, 64, 8]);
        self.outbox_kib = *rng.pick(&[8192, 8192, 512]);
        self.rate_kib = *rng.pick(&[0, 0, 100, 10]);
        self.late = if rng.chance(100) { rng.range(1, 30) } else { 0 };
        self.foreign_every = if rng.chance(100) { rng.range(1, 10) } else { 0 };
        self.found_again = *rng.pick(&[0, 0, 300]);
        self.snapshot_chunk = *rng.pick(&[1, 5, 1000]);
        self.shrink = *rng.pick(&[1, 1, 1, 64, 512]);
        self.log_kib = *rng.pick(&[32 << 10, 32 << 10, 64, 4]);
        self.groups = *rng.pick(&[1, 1, 2, 3]);
        self.op_update = *rng.pick(&[0, 50, 300]);
        self.op_readd = u64::from(rng.chance(300));
    }
}
