//! What a process and the machine spent, read from `/proc` (proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

/// `USER_HZ`: fixed at 100 in the Linux ABI of all common architectures.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process at one moment.
#[derive(Debug, Clone)]
pub(crate) struct ProcessSample {
    at: Instant,
    user_s: f64,
    system_s: f64,
    pub(crate) rss_kb: u64,
    /// Thread id → name and CPU seconds.
    threads: BTreeMap<u32, (String, f64)>,
}

/// What a process spent between two moments.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ProcessUse {
    pub(crate) seconds: f64,
    pub(crate) cpu_s: f64,
    pub(crate) user_s: f64,
    pub(crate) system_s: f64,
    /// By thread name, the busiest first; threads of one name are counted together.
    pub(crate) threads: Vec<(String, f64)>,
}

impl ProcessSample {
    pub(crate) fn take(pid: u32) -> Result<ProcessSample> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}: is the process still running?"))
        };
        let (user_s, system_s) = cpu_seconds(&read("stat")?).context("/proc/PID/stat has an unknown form")?;
        let status = read("status")?;
        let rss_kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss_kb = rss_kb.and_then(|rest| rest.split_whitespace().next()).and_then(|kb| kb.parse().ok());
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let path = entry.path();
            // A thread may end between listing and reading.
            let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
            let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Some((user, system)) = cpu_seconds(&stat) else { continue };
            // Nanoseconds on the CPU where the kernel keeps them; ticks are too coarse for short spans.
            let precise = fs::read_to_string(path.join("schedstat")).ok();
            let precise = precise.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
            let seconds = precise.map_or(user + system, |ns| ns / 1e9);
            threads.insert(tid, (thread_name(&stat), seconds));
        }
        Ok(ProcessSample { at: Instant::now(), user_s, system_s, rss_kb: rss_kb.unwrap_or(0), threads })
    }

    pub(crate) fn until(&self, later: &ProcessSample) -> ProcessUse {
        let mut by_name = BTreeMap::<String, f64>::new();
        for (tid, (name, seconds)) in &later.threads {
            let before = self.threads.get(tid).map_or(0.0, |(_, seconds)| *seconds);
            *by_name.entry(name.clone()).or_default() += (seconds - before).max(0.0);
        }
        let mut threads: Vec<_> = by_name.into_iter().filter(|(_, seconds)| *seconds >= 0.001).collect();
        threads.sort_by(|a, b| b.1.total_cmp(&a.1));
        let user_s = later.user_s - self.user_s;
        let system_s = later.system_s - self.system_s;
        let by_threads: f64 = threads.iter().map(|(_, seconds)| seconds).sum();
        // Ticks count threads that have ended, nanoseconds are finer: the larger is nearer to the truth.
        let cpu_s = by_threads.max(user_s + system_s);
        ProcessUse { seconds: (later.at - self.at).as_secs_f64(), cpu_s, user_s, system_s, threads }
    }
}

/// Busy and total time of each core since boot.
#[derive(Debug, Clone)]
pub(crate) struct CoreSample(Vec<(f64, f64)>);

impl CoreSample {
    pub(crate) fn take() -> Result<CoreSample> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let cores = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
        Ok(CoreSample(cores.map(core_times).collect()))
    }

    /// Busy share of each core in percent.
    pub(crate) fn busy_percent_until(&self, later: &CoreSample) -> Vec<f64> {
        let pairs = self.0.iter().zip(&later.0);
        pairs.map(|(a, b)| 100.0 * (b.0 - a.0) / (b.1 - a.1).max(1.0)).collect()
    }
}

/// Datagrams that the kernel dropped since boot because the receiving socket was full (all processes).
pub(crate) fn udp_receive_drops() -> u64 {
    let count = |path: &str, label: &str| -> Option<u64> {
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines().filter(|line| line.starts_with(label));
        let (names, values) = (lines.next()?, lines.next()?);
        let column = names.split_whitespace().position(|name| name == "RcvbufErrors")?;
        values.split_whitespace().nth(column)?.parse().ok()
    };
    count("/proc/net/snmp", "Udp:").unwrap_or(0)
}

/// User and system seconds out of a `stat` line.
fn cpu_seconds(stat: &str) -> Option<(f64, f64)> {
    // The name in parentheses may hold spaces and parentheses itself.
    let rest = stat.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user / TICKS_PER_SECOND, system / TICKS_PER_SECOND))
}

fn thread_name(stat: &str) -> String {
    let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    name.map_or_else(|| "?".to_owned(), |(name, _)| name.to_owned())
}

fn core_times(line: &str) -> (f64, f64) {
    let times: Vec<f64> = line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let total: f64 = times.iter().sum();
    let idle: f64 = times.iter().skip(3).take(2).sum();
    (total - idle, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1";
        assert_eq!(cpu_seconds(stat), Some((2.5, 0.5)));
        assert_eq!(thread_name(stat), "a) b (c)");
    }

    #[test]
    fn idle_and_io_wait_are_not_busy() {
        assert_eq!(core_times("cpu0 10 0 20 60 10 0 0 0 5 5"), (30.0, 100.0));
    }

    #[test]
    fn own_process_can_be_sampled() {
        let before = ProcessSample::take(std::process::id()).expect("a sample");
        let after = ProcessSample::take(std::process::id()).expect("a sample");
        assert!(before.rss_kb > 0);
        assert!(before.until(&after).cpu_s >= 0.0);
    }
}
