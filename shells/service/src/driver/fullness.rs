//! Share of the repository of an IPFS node that is used.

/// Share of its maximum in percent from which a repository counts as full: peers report that as an error, and
/// a collection of garbage does not wait.
pub(crate) const FULL: u64 = 95;

/// Returns the share in percent that `size` is of `max`.
pub(crate) fn percent(size: u64, max: u64) -> u64 {
    let percent = u128::from(size) * 100 / u128::from(max.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}
