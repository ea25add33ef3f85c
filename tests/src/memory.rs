//! Memory use of a process, from Linux's `/proc`.

use std::fs;

/// One mebibyte, in bytes.
pub const MIB: u64 = 1 << 20;

/// Returns the peak of physical memory since the process started, or since [`reset_peak`], in bytes.
///
/// # Errors
/// Fails if the process has ended.
pub fn peak(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    // A zombie process has no memory.
    let peak = peak.ok_or_else(|| format!("{path}: the process has ended"))?;
    let kib = peak.trim().trim_end_matches(" kB").parse::<u64>();
    kib.map(|kib| kib * 1024)
        .map_err(|error| format!("{path}: {peak}: {error}"))
}

/// Resets [`peak`].
///
/// # Errors
/// Fails if the process has ended, or belongs to another user.
pub fn reset_peak(pid: u32) -> Result<(), String> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").map_err(|error| format!("{path}: {error}"))
}
