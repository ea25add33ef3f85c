//! The `ipfs-cluster-service` command.

mod cli;

/// Every pin allocates many small pieces in one thread that another one frees: with the system's allocator
/// that takes a tenth of the processor time (glibc 2.36).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
