//! The words and figures of `freshet bench`.

use std::fmt;
use std::time::Duration;

use super::stage::Usage;

/// Below the table.
pub(super) const FOOT: &str = "
ns/pkt       processor time for each packet sent: in the shard (decrypting, fan-out, encrypting, reports) + in the kernel
per core     what one core does when it does nothing else; plan with 70 % of it
KB/viewer    growth of resident memory for each viewer; join: the server's processor time for offer, ICE and DTLS
p99          processor time after which 99 of 100 packets of a burst had left

This was loopback: the kernel charges the receiver's half of the path to the sender, and cuts segments in software.
A network card charges interrupts and its driver instead. Viewers were silent; their reports and checks cost some 5 %.
Measure with the load tool from another machine before you rely on it, and leave room for HTTP and other work.
";

/// Above the table.
pub(super) fn head(bitrate_mbps: f64, packets_per_second: u32, offload: bool) -> String {
    let offload = if offload { "yes" } else { "no (old kernel?): expect twice the cost" };
    format!(
        "One shard on one thread, over loopback. The stream: {bitrate_mbps} Mbit/s of video at 30 frames/s and Opus, \
         {packets_per_second} packets/s.\nSegmentation offload: {offload}\n\n{:>8} {:>10} {:>22} {:>8} {:>8} {:>9} {:>10} {:>12} {:>9} {:>13}\n",
        "viewers",
        "kpkt/s",
        "ns/pkt  shard + send",
        "calls",
        "messages",
        "KB each",
        "join µs",
        "join p99 µs",
        "p99 ms",
        "per core"
    ) + &format!("{:>8} {:>10} {:>22} {:>8} {:>8}\n", "", "per core", "", "per kpkt", "per kpkt")
}

/// One measurement.
pub(super) struct Row<'a> {
    pub(super) viewers: u32,
    pub(super) usage: &'a Usage,
    /// Seconds of the stream.
    pub(super) played: f64,
    pub(super) dropped: u64,
    pub(super) bytes: u64,
    pub(super) joins: &'a [Duration],
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packets = self.usage.packets.max(1) as f64;
        let nanos = |d: Duration| d.as_nanos() as f64 / packets;
        let (shard, send) = (nanos(self.usage.shard), nanos(self.usage.send));
        let all = (self.usage.shard + self.usage.send).as_secs_f64().max(1e-9);
        let mut joins: Vec<f64> = self.joins.iter().map(|d| d.as_secs_f64() * 1e6).collect();
        joins.sort_unstable_by(f64::total_cmp);
        let join = |percent: usize| joins.get((joins.len() * percent / 100).min(joins.len().saturating_sub(1)));
        writeln!(
            f,
            "{:>8} {:>10.0} {:>9.0} = {:>4.0} + {:>4.0} {:>7.0} {:>8.0} {:>9.1} {:>10.0} {:>12.0} {:>9.2} {:>6.0} viewers",
            self.viewers,
            packets / all / 1e3,
            shard + send,
            shard,
            send,
            self.usage.calls as f64 * 1000.0 / packets,
            self.usage.messages as f64 * 1000.0 / packets,
            self.bytes as f64 / f64::from(self.viewers) / 1024.0,
            join(50).copied().unwrap_or_default(),
            join(99).copied().unwrap_or_default(),
            self.usage.p99_delay().as_secs_f64() * 1e3,
            f64::from(self.viewers) * self.played / all,
        )?;
        if self.dropped > 0 {
            writeln!(f, "         {} packets did not leave: the socket's buffer was full", self.dropped)?;
        }
        Ok(())
    }
}
