//! What `/proc` tells about this process and the host, for `/api/v1/summaries`. Everything is zero where there is no
//! `/proc`.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// CPU time between two looks is averaged over at least this time, so that two callers do not see noise.
const LEAST_CPU_INTERVAL: Duration = Duration::from_secs(1);

/// Clock ticks per second of `/proc/self/stat`; the kernel's ABI fixes it for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// Share of one core that the process uses.
#[derive(Debug, Default)]
pub(super) struct CpuMeter(Mutex<Option<CpuSample>>);

#[derive(Debug, Clone, Copy)]
struct CpuSample {
    at: Instant,
    ticks: u64,
    share: f64,
}

impl CpuMeter {
    /// 1.0 is one core. The first look sees the time since `started`.
    pub(super) fn share(&self, started: Instant) -> f64 {
        let mut last = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = Instant::now();
        let before = last.unwrap_or(CpuSample { at: started, ticks: 0, share: 0.0 });
        let elapsed = now.saturating_duration_since(before.at);
        if last.is_some() && elapsed < LEAST_CPU_INTERVAL {
            return before.share;
        }
        let ticks = own_ticks(&read("/proc/self/stat")).unwrap_or_default();
        let seconds = ticks.saturating_sub(before.ticks) as f64 / TICKS_PER_SECOND;
        let share = seconds / elapsed.as_secs_f64().max(0.001);
        *last = Some(CpuSample { at: now, ticks, share });
        share
    }
}

/// User and system time of `/proc/self/stat` (proc(5): fields 14 and 15, counted after the name, which may hold
/// spaces).
fn own_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory of this process.
pub(super) fn own_memory_kib() -> u64 {
    field_kib(&read("/proc/self/status"), "VmRSS:").unwrap_or_default()
}

/// Memory of the host: all of it, and what is free for use.
pub(super) fn host_memory_kib() -> (u64, u64) {
    let meminfo = read("/proc/meminfo");
    let field = |name| field_kib(&meminfo, name).unwrap_or_default();
    (field("MemTotal:"), field("MemAvailable:"))
}

/// Load averages over 1, 5 and 15 minutes.
pub(super) fn load_averages() -> [f64; 3] {
    let text = read("/proc/loadavg");
    let mut values = text.split_ascii_whitespace().map_while(|value| value.parse().ok());
    std::array::from_fn(|_| values.next().unwrap_or_default())
}

/// Seconds since the host started, and seconds that its cores have idled.
pub(super) fn uptime_and_idle_seconds() -> (f64, f64) {
    let text = read("/proc/uptime");
    let mut values = text.split_ascii_whitespace().map_while(|value| value.parse().ok());
    (values.next().unwrap_or_default(), values.next().unwrap_or_default())
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "4242 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0";
        assert_eq!(own_ticks(stat), Some(100));
        assert_eq!(own_ticks(""), None);
    }

    #[test]
    fn memory_fields_are_found() {
        let status = "Name:\tx\nVmRSS:\t    1234 kB\n";
        assert_eq!(field_kib(status, "VmRSS:"), Some(1234));
        assert_eq!(field_kib(status, "VmSwap:"), None);
    }
}
