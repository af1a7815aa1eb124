//! The `bpfsim` command.

fn main() -> std::process::ExitCode {
    bpfsim_cli::main()
}
