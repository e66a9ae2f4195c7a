//! Freshet: a WebRTC-first media server in one binary.
//!
//! This crate is the shell around the state machines of the other crates: configuration, sockets, threads, clocks, TLS,
//! HTTP and signals. [`run`] puts the parts together.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics says where"))]

mod access;
mod args;
mod bench;
mod candidates;
mod certificates;
mod config;
mod engine;
mod forward;
mod hls;
mod hooks;
mod http;
mod identity;
mod listener;
mod live;
mod logging;
mod peeked;
mod record;
mod run;
mod signaling;
mod snapshots;
mod srs_code;
mod stream_pattern;
mod tls_client;
mod udp;
mod url;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::config::Loaded;

/// Thousands of sessions allocate and free packets of a few sizes on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let file = cli.file.config.as_deref();
    let done = match cli.command {
        None => load(file).and_then(|loaded| run::run(&loaded.config, file)),
        Some(Command::Check) => load(file).and_then(|loaded| check(&loaded, file)),
        Some(Command::Bench(args)) => bench::run(&args, print),
        Some(Command::Config) => load(file).and_then(|loaded| print(&loaded.text)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not through the log: its level may be off, and it may not have started.
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(loaded: &Loaded, file: Option<&Path>) -> anyhow::Result<()> {
    certificates::check(&loaded.config.https)?;
    print(&format!("{}: ok\n", name(file)))
}

fn load(file: Option<&Path>) -> anyhow::Result<Loaded> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))?,
        None => String::new(),
    };
    // A variable that is not UTF-8 cannot be one of ours.
    let environment: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    Ok(config::load(&text, &name(file), &environment)?)
}

fn name(file: Option<&Path>) -> String {
    file.map_or_else(|| "default configuration".to_owned(), |path| path.display().to_string())
}

fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        // `freshet config | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write to standard output"),
    }
}
