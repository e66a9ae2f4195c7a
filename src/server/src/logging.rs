//! Log lines on standard error: what our crates say from the configured level on, what libraries say from `warn` on.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Our crates, by the names that `tracing` gives their targets.
const OURS: [&str; 5] = ["freshet", "freshet_sfu", "freshet_media", "freshet_bridge", "freshet_signaling"];

/// Starts logging. `RUST_LOG`, when set, replaces the level altogether.
///
/// # Errors
/// `RUST_LOG` is not a filter, or logging runs already.
pub(crate) fn start(log: &Log, rust_log: Option<&str>) -> anyhow::Result<()> {
    let filter = match rust_log.filter(|text| !text.trim().is_empty()) {
        Some(text) => EnvFilter::try_new(text).map_err(|error| {
            anyhow::anyhow!("RUST_LOG={text:?} is not a filter ({error}): write for example RUST_LOG=freshet=debug")
        })?,
        None => EnvFilter::try_new(directives(log.level))?,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

fn directives(level: LogLevel) -> String {
    let (others, ours) = match level {
        LogLevel::Off => return "off".to_owned(),
        LogLevel::Error => ("error", "error"),
        LogLevel::Warn => ("warn", "warn"),
        LogLevel::Info => ("warn", "info"),
        LogLevel::Debug => ("warn", "debug"),
        LogLevel::Trace => ("warn", "trace"),
    };
    let ours: Vec<String> = OURS.iter().map(|name| format!("{name}={ours}")).collect();
    format!("{others},{}", ours.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_a_filter_and_libraries_stay_quiet() {
        for level in [LogLevel::Off, LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]
        {
            assert!(EnvFilter::try_new(directives(level)).is_ok(), "{level:?}");
        }
        assert!(directives(LogLevel::Trace).starts_with("warn,freshet=trace"));
    }
}
