//! Integration tests with real processes: peers, IPFS nodes, sockets, disks, signals.

#[path = "it/amplification.rs"]
mod amplification;
#[path = "it/announcing.rs"]
mod announcing;
#[path = "it/bad_input.rs"]
mod bad_input;
#[path = "it/capacity.rs"]
mod capacity;
#[path = "it/commands.rs"]
mod commands;
#[path = "it/composite.rs"]
mod composite;
#[path = "it/content.rs"]
mod content;
#[path = "it/credentials.rs"]
mod credentials;
#[path = "it/damage.rs"]
mod damage;
#[path = "it/drain.rs"]
mod drain;
#[path = "it/dynamic_membership.rs"]
mod dynamic_membership;
#[path = "it/field_reports.rs"]
mod field_reports;
#[path = "it/folders.rs"]
mod folders;
#[path = "it/kills.rs"]
mod kills;
#[path = "it/local_network.rs"]
mod local_network;
#[path = "it/logs_and_ctl.rs"]
mod logs_and_ctl;
#[path = "it/manual.rs"]
mod manual;
#[path = "it/monitoring_and_failover.rs"]
mod monitoring_and_failover;
#[path = "it/network_faults.rs"]
mod network_faults;
#[path = "it/observability.rs"]
mod observability;
#[path = "it/openapi.rs"]
mod openapi;
#[path = "it/packages.rs"]
mod packages;
#[path = "it/pinning.rs"]
mod pinning;
#[path = "it/pinning_service.rs"]
mod pinning_service;
#[path = "it/proxy.rs"]
mod proxy;
#[path = "it/rebalance.rs"]
mod rebalance;
#[path = "it/scale_down.rs"]
mod scale_down;
#[path = "it/security.rs"]
mod security;
#[path = "it/sizes.rs"]
mod sizes;
#[path = "it/starting.rs"]
mod starting;
#[path = "it/state.rs"]
mod state;
#[path = "it/static_membership.rs"]
mod static_membership;
#[path = "it/three_states.rs"]
mod three_states;
#[path = "it/tracing.rs"]
mod tracing;
#[path = "it/troubleshooting.rs"]
mod troubleshooting;
#[path = "it/upgrading.rs"]
mod upgrading;
