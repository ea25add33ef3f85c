//! Profiles: runs with many events of one kind. Few runs with random options have enough of one kind to find
//! the bugs that need many, so some seeds in each hundred have a profile.

use super::Options;
use crate::rng::Rng;

/// Spreads the profiles over each hundred seeds. It has no common divisor with a hundred.
const STRIDE: u64 = 37;

impl Options {
    /// Applies the profile of this seed, if it has one.
    pub(super) fn draw_profile(&mut self, rng: &mut Rng) {
        match self.seed % 100 * STRIDE % 100 {
            0..4 => self.change_members(rng),
            4..7 => self.lose_disks(rng),
            7..10 => self.grow(rng),
            10..13 => self.readd_members(rng),
            13..16 => self.receive_foreign_messages(rng),
            16..19 => self.delay_messages(rng),
            19..21 => self.found_again(rng),
            21..24 => self.weigh(rng),
            24 => self.fill(rng),
            25..29 => self.shrink_limits(rng),
            29..33 => self.expire(rng),
            33..37 => self.fail_over(rng),
            37..41 => self.upgrade(rng),
            41..44 => self.fail_at_ipfs(rng),
            44..47 => self.fall_behind(rng),
            47..50 => self.read_after_restarts(rng),
            50..53 => self.set_clocks_wrong(rng),
            53..56 => self.rescue(rng),
            _ => {}
        }
    }

    fn change_members(&mut self, rng: &mut Rng) {
        self.peers = self.peers.clamp(4, 6);
        self.joiners = rng.range(1, 3);
        self.op_members = rng.range(100, 400);
        self.op_readd = 1;
        self.think_ms = 200;
        self.replace_after_ms = *rng.pick(&[6000, 20_000]);
        self.voters_max = *rng.pick(&[3, 5, 7]);
    }

    fn lose_disks(&mut self, rng: &mut Rng) {
        self.peers = *rng.pick(&[3, 3, 5]);
        self.disk_lost_every = rng.range(3, 8);
        self.disk_rot_every = rng.range(8, 30);
        self.trailing_logs = *rng.pick(&[0, 2, 20]);
    }

    fn grow(&mut self, rng: &mut Rng) {
        self.peers = *rng.pick(&[1, 2, 3]);
        self.learners = 0;
        self.joiners = rng.range(3, 6);
        self.op_members = rng.range(200, 500);
        self.think_ms = 200;
    }

    fn readd_members(&mut self, rng: &mut Rng) {
        self.peers = 5;
        self.joiners = 1;
        self.op_members = rng.range(200, 400);
        self.op_readd = 1;
        self.think_ms = 200;
        self.seconds = rng.range(40, 60);
        self.disk_lost_every = *rng.pick(&[0, 10]);
    }

    fn receive_foreign_messages(&mut self, rng: &mut Rng) {
        self.foreign_every = 1;
        self.joiners = *rng.pick(&[0, 1, 2]);
    }

    fn delay_messages(&mut self, rng: &mut Rng) {
        self.streams = 0;
        self.late = rng.range(30, 150);
        self.duplicate = rng.range(100, 300);
        self.disk_lost_every = *rng.pick(&[0, 8]);
    }

    fn found_again(&mut self, rng: &mut Rng) {
        self.peers = *rng.pick(&[3, 4, 5]);
        self.found_again = 1000;
        self.disk_lost_every = rng.range(3, 8);
        self.late = *rng.pick(&[0, 30]);
        self.streams = 0;
    }

    fn weigh(&mut self, rng: &mut Rng) {
        self.peers = 3;
        self.learners = 0;
        self.clients = 6;
        self.think_ms = 20;
        self.op_unpin = 100;
        self.log_kib = *rng.pick(&[64, 512]);
        self.pin_bytes = *rng.pick(&[1 << 10, 15_000]);
        self.bulk = *rng.pick(&[0, 300]);
        self.ipfs_slow_ms = 10;
        self.entry_kib = *rng.pick(&[18, 64]);
        self.frame_kib = self.entry_kib;
    }

    fn fill(&mut self, rng: &mut Rng) {
        self.peers = 3;
        self.learners = 0;
        self.joiners = self.joiners.min(1);
        self.bulk = rng.range(6000, 6500);
        self.cids = 8000;
        self.seconds = 40;
        self.ipfs_slow_ms = 10;
        self.ipfs_hang = 0;
        self.ipfs_fail = self.ipfs_fail.min(20);
        self.unavailable = 0;
        self.concurrent_pins = 100;
        self.compare_ms = 20_000;
        self.open_max = 4096;
        self.shrink = *rng.pick(&[1, 1, 64]);
        self.log_kib = *rng.pick(&[32 << 10, 256]);
        self.snapshot_chunk = 1000;
    }

    fn shrink_limits(&mut self, rng: &mut Rng) {
        self.shrink = 512;
        self.log_kib = *rng.pick(&[2, 4, 16]);
        self.outbox_messages = *rng.pick(&[4, 8]);
        self.streams = 1;
        self.rate_kib = *rng.pick(&[1, 10]);
        self.snapshot_chunk = 1;
        self.concurrent_pins = *rng.pick(&[1, 3]);
        self.clients = 6;
        self.cids = 40;
        self.think_ms = 20;
    }

    fn expire(&mut self, rng: &mut Rng) {
        self.op_expire = rng.range(400, 900);
        self.op_repeat = rng.range(200, 500);
        self.op_unpin = *rng.pick(&[0, 50]);
        self.cids = *rng.pick(&[3, 10]);
        self.clock_step_every = *rng.pick(&[0, 0, 5]);
        self.think_ms = 200;
        if rng.chance(300) {
            // Many end at once.
            self.bulk = 200;
            self.cids = 200;
        }
    }

    fn fail_over(&mut self, rng: &mut Rng) {
        self.peers = rng.range(4, 6);
        self.failover = u64::from(rng.chance(850));
        self.grace_ms = *rng.pick(&[200, 1000, 3000]);
        self.metrics_ms = *rng.pick(&[300, 1000]);
        self.replicas_max = rng.range(2, 3);
        self.replicas_min = rng.range(1, self.replicas_max);
        self.restart_spread_ms = 10_000;
        self.leader_kill_every = *rng.pick(&[0, 6]);
        self.pause_every = 6;
        self.cids = 40;
        // Peers that stay away, and others that cannot take their pins at once.
        self.ipfs_restart_every = *rng.pick(&[0, 3]);
        self.leave_broken = *rng.pick(&[0, 500, 1000]);
    }

    /// Draws changes of the leader while members of the older release are down: the leader has not heard from
    /// them.
    fn upgrade(&mut self, rng: &mut Rng) {
        self.peers = 5;
        self.old = *rng.pick(&[300, 500]);
        self.upgrade_every = 10;
        self.partition_every = 5;
        self.kill_every = 5;
        self.cut_all_every = 6;
        self.leader_kill_every = 5;
        self.metrics_ms = 300;
        self.seconds = rng.range(40, 60);
    }

    fn fail_at_ipfs(&mut self, rng: &mut Rng) {
        self.ipfs_fail = rng.range(200, 500);
        self.ipfs_hang = *rng.pick(&[0, 100]);
        self.op_recover = 200;
        self.cids = 40;
        self.concurrent_pins = *rng.pick(&[1, 3]);
        self.ipfs_forget_every = *rng.pick(&[0, 5]);
        self.clock_step_every = 0;
        self.shrink = *rng.pick(&[1, 64, 512]);
        if self.ipfs_forget_every > 0 && rng.chance(500) {
            // Pins are added and removed during comparisons.
            self.cids = 3;
            self.clients = 6;
            self.think_ms = 20;
            self.op_unpin = 450;
            self.compare_ms = 500;
            self.ipfs_slow_ms = 200;
        } else {
            self.unavailable = *rng.pick(&[0, 2]);
        }
    }

    /// Draws peers that fall behind the log and get snapshots, after power cuts that lose their local states,
    /// the only records of what their IPFS nodes have.
    fn fall_behind(&mut self, rng: &mut Rng) {
        self.peers = 3;
        self.learners = 0;
        self.cids = *rng.pick(&[1, 3, 10]);
        self.clients = 6;
        self.think_ms = 20;
        self.op_unpin = 450;
        self.trailing_logs = 0;
        self.sync_slow = rng.range(100, 500);
        self.cut_every = 3;
        self.aim = 40;
        self.restart_spread_ms = *rng.pick(&[200, 2000]);
        self.partition_every = 4;
        self.snapshot_chunk = 1000;
        self.compare_ms = 3_000_000;
        self.ipfs_forget_every = 0;
        self.ipfs_slow_ms = *rng.pick(&[10, 200]);
        self.replicas_max = *rng.pick(&[0, 2]);
        self.replicas_min = self.replicas_max.min(1);
    }

    /// Draws restarts of processes during their reads, whose answers arrive late.
    fn read_after_restarts(&mut self, rng: &mut Rng) {
        self.peers = *rng.pick(&[3, 5]);
        self.streams = 0;
        self.late = rng.range(100, 300);
        self.clients = 6;
        self.think_ms = 20;
        self.op_read = 600;
        self.op_unpin = 100;
        self.to_leader = 0;
        self.kill_every = 3;
        self.cut_every = 3;
        self.restart_spread_ms = 200;
        self.patience_ms = *rng.pick(&[300, 3000]);
        self.disk_lost_every = 0;
    }

    /// Draws losses of all members but one, which founds a new cluster on its data.
    fn rescue(&mut self, rng: &mut Rng) {
        self.peers = *rng.pick(&[2, 3, 5]);
        self.learners = *rng.pick(&[0, 0, 1]);
        self.seconds = rng.range(30, 60);
        self.rescue_every = rng.range(5, 15);
        self.disk_lost_every = *rng.pick(&[0, 10]);
        self.disk_full_every = 0;
        self.disk_rot_every = 0;
        self.found_again = 0;
        self.op_members = *rng.pick(&[0, 30]);
        self.op_readd = 1;
        self.op_unpin = self.op_unpin.min(250);
        self.late = *rng.pick(&[0, 30]);
    }

    /// Draws steps of the wall clocks by more than the time until pins expire.
    fn set_clocks_wrong(&mut self, rng: &mut Rng) {
        self.peers = *rng.pick(&[2, 3, 4, 5]);
        self.learners = 0;
        self.clock_step_every = rng.range(3, 8);
        self.op_expire = rng.range(500, 900);
        self.op_unpin = 50;
        self.metrics_ms = *rng.pick(&[300, 1000, 5000]);
        self.think_ms = 200;
        self.pause_every = *rng.pick(&[0, 6]);
        self.leader_kill_every = *rng.pick(&[0, 4]);
        self.cut_all_every = *rng.pick(&[0, 6]);
    }
}
