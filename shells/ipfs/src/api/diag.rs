//! The commands `diag/sys` and `shutdown`.

use cluster_http::rpc::Failure;
use futures::stream::{self, StreamExt};
use serde_json::json;

use super::reply::Reply;
use super::request::Call;

/// Size of a page of memory, in bytes, on the systems that have `/proc`.
const PAGE: u64 = 4096;

/// Returns the virtual memory of this process, in bytes; 0 if the system does not report it.
fn virtual_memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .next()
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(PAGE)
}

/// Handles `diag/sys`: the machine and the process.
pub(super) async fn sys(call: Call) -> Result<Reply, Failure> {
    let stat = call.node.stat()?;
    let free = stat.storage_fits.saturating_sub(stat.repo_size);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let addresses: Vec<String> = call.node.id().addresses.iter().map(|it| it.to_string()).collect();
    Reply::once(&json!({
        "diskinfo": { "free_space": free, "fstype": "", "total_space": stat.disk_size },
        "environment": {},
        "ipfs_commit": super::PROGRAM,
        "ipfs_version": super::API_VERSION,
        "memory": { "swap": 0, "virt": virtual_memory() },
        "net": { "interface_addresses": addresses, "online": true },
        "runtime": {
            "arch": std::env::consts::ARCH,
            "os": std::env::consts::OS,
            "numcpu": cores,
            "version": "",
        },
    }))
}

/// Handles `shutdown`: asks the program that runs the node to end.
pub(super) async fn shutdown(call: Call) -> Result<Reply, Failure> {
    call.node.request_shutdown();
    Ok(Reply::Objects(stream::empty().boxed()))
}
