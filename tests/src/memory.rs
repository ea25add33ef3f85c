//! Memory of a process, as Linux counts it.

use std::fs;

/// Bytes in one mebibyte.
pub const MIB: u64 = 1 << 20;

/// The most physical memory that the process has had at once since it started, or since
/// [`reset_peak`]; in bytes.
///
/// # Errors
/// The process has ended.
pub fn peak(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    // A process that has ended and was not waited for has no memory.
    let peak = peak.ok_or_else(|| format!("{path}: the process has ended"))?;
    let kib = peak.trim().trim_end_matches(" kB").parse::<u64>();
    kib.map(|kib| kib * 1024)
        .map_err(|error| format!("{path}: {peak}: {error}"))
}

/// Starts the count of [`peak`] anew.
///
/// # Errors
/// The process has ended, or belongs to another user.
pub fn reset_peak(pid: u32) -> Result<(), String> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").map_err(|error| format!("{path}: {error}"))
}
