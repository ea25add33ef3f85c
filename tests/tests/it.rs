//! What needs real processes: three peers, their IPFS nodes, sockets, disks, signals.

#[path = "it/commands.rs"]
mod commands;
#[path = "it/content.rs"]
mod content;
#[path = "it/failover.rs"]
mod failover;
#[path = "it/kills.rs"]
mod kills;
