//! `/api/v1/summaries`: load of the process and the host under SRS's field names, `ilde_time` included, which is part
//! of the wire format. Disk, swap and socket counts are not looked up and read 0.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::{AppState, VERSION, system};

pub(super) fn data(state: &AppState) -> Value {
    let now_ms = unix_ms(SystemTime::now());
    let metrics = state.sessions.metrics();
    let (total_kib, available_kib) = system::host_memory_kib();
    let own_kib = system::own_memory_kib();
    let [load_1m, load_5m, load_15m] = system::load_averages();
    let (uptime, idle) = system::uptime_and_idle_seconds();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let recv_bytes: u64 = metrics.shards.iter().map(|shard| shard.recv_bytes).sum();
    let send_bytes: u64 = metrics.shards.iter().map(|shard| shard.sent_bytes).sum();
    json!({
        "ok": true,
        "now_ms": now_ms,
        "self": {
            "version": VERSION,
            "pid": std::process::id(),
            "ppid": std::os::unix::process::parent_id(),
            "argv": "freshet",
            "cwd": "",
            "mem_kbyte": own_kib,
            "mem_percent": share(own_kib, total_kib),
            "cpu_percent": state.cpu.share(state.settings.identity.started),
            "srs_uptime": state.settings.identity.started.elapsed().as_secs(),
        },
        "system": {
            "cpu_percent": 0,
            "disk_read_KBps": 0,
            "disk_write_KBps": 0,
            "disk_busy_percent": 0,
            "mem_ram_kbyte": total_kib,
            "mem_ram_percent": share(total_kib.saturating_sub(available_kib), total_kib),
            "mem_swap_kbyte": 0,
            "mem_swap_percent": 0,
            "cpus": cpus,
            "cpus_online": cpus,
            "uptime": uptime,
            "ilde_time": idle,
            "load_1m": load_1m,
            "load_5m": load_5m,
            "load_15m": load_15m,
            "net_sample_time": now_ms,
            "net_recv_bytes": recv_bytes,
            "net_send_bytes": send_bytes,
            "net_recvi_bytes": 0,
            "net_sendi_bytes": 0,
            "srs_sample_time": now_ms,
            "srs_recv_bytes": recv_bytes,
            "srs_send_bytes": send_bytes,
            "conn_sys": 0,
            "conn_sys_et": 0,
            "conn_sys_tw": 0,
            "conn_sys_udp": 0,
            "conn_srs": metrics.publishers + metrics.viewers,
        },
    })
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// SRS's "percent" is a fraction.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
