//! What needs real processes: three peers, their IPFS nodes, sockets, disks, signals.

#[path = "it/bad_input.rs"]
mod bad_input;
#[path = "it/commands.rs"]
mod commands;
#[path = "it/content.rs"]
mod content;
#[path = "it/failover.rs"]
mod failover;
#[path = "it/folders.rs"]
mod folders;
#[path = "it/kills.rs"]
mod kills;
#[path = "it/logs_and_ctl.rs"]
mod logs_and_ctl;
#[path = "it/network_faults.rs"]
mod network_faults;
#[path = "it/security.rs"]
mod security;
#[path = "it/three_states.rs"]
mod three_states;
#[path = "it/troubleshooting.rs"]
mod troubleshooting;
