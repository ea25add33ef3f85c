//! The `ipfs-cluster-service` command.

mod cli;

/// Every pin is many small pieces of memory that one thread takes and another gives back: the system's
/// allocator spends a tenth of the processor on that (glibc 2.36).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
