//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::bench::BenchArgs;

/// A WebRTC-first media server: publish over WHIP, watch over WHEP.
///
/// Without arguments it runs with the defaults: open the address that it prints, click Publish, and open the play page
/// in another tab.
#[derive(Debug, Parser)]
#[command(name = "freshet", version, arg_required_else_help = false, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) file: ConfigFile,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file; without it the defaults apply
    #[arg(short, long = "config", value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

/// What to do instead of running.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub(crate) enum Command {
    /// Check the configuration and the certificate it names, and say what is wrong
    Check,
    /// Print the configuration as it would be used, defaults and environment included
    Config,
    /// Measure how many viewers this machine carries, in memory and over loopback
    Bench(BenchArgs),
}

const AFTER_HELP: &str = "\
Examples:
  freshet                              run with the defaults
  freshet -c conf/freshet.toml         run with a file; conf/freshet.toml explains every key
  freshet check -c my.toml             find mistakes before a restart
  freshet bench                        how many viewers this machine carries
  CANDIDATE=203.0.113.7 freshet        tell browsers a public address (NAT, Docker, cloud)
  FRESHET_HTTP_LISTEN=8081 freshet     any key by environment: FRESHET_SECTION_KEY

Signals:
  SIGTERM, SIGINT   end now, closing all sessions
  SIGQUIT           take no new sessions, end when the running ones have ended

Log lines go to standard error; RUST_LOG=freshet=debug shows more.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_file_may_stand_on_either_side_of_the_command() {
        Cli::command().debug_assert();
        for line in [["freshet", "check", "-c", "a.toml"], ["freshet", "-c", "a.toml", "check"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!((cli.command, cli.file.config), (Some(Command::Check), Some(PathBuf::from("a.toml"))));
        }
        assert!(Cli::try_parse_from(["freshet"]).unwrap().command.is_none());
        assert!(Cli::try_parse_from(["freshet", "a.toml"]).is_err());
    }
}
