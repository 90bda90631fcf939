//! `gpuquota-agent`: see [`gpuquota_agent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    gpuquota_agent::cli::main()
}
