//! The `ipfs-cluster-service` command.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
