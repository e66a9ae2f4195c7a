//! Puts the server together, says how it is reached, and ends it on a signal.
//!
//! SIGTERM and SIGINT end at once: sessions are closed, requests at hand get [`END_WITHIN`]. SIGQUIT drains: new sessions
//! get 503, the running ones go on until the last has ended or `shutdown.drain_seconds` are over.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::access::Access;
use crate::candidates::{self, CandidateSources};
use crate::certificates::Certificates;
use crate::config::Config;
use crate::engine::Engine;
use crate::forward::OwnAddresses;
use crate::hls::{HlsServer, HlsSettings};
use crate::hooks::Hooks;
use crate::http::{self, AppState, HttpSettings, ServerInfo};
use crate::identity::Identity;
use crate::listener::{self, RtmpService, Services};
use crate::live::{RtmpServer, RtmpSettings};
use crate::logging;
use crate::record::RecordServer;
use crate::signaling::Signaling;

/// Requests at hand when the server ends; a supervisor that waits two seconds must not have to kill us.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Then for hooks of what has just ended.
const HOOKS_WITHIN: Duration = Duration::from_secs(1);

/// For blocking work that is still running after that.
const RUNTIME_END_WITHIN: Duration = Duration::from_millis(500);

/// How often a draining server counts its sessions.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Runs until a signal ends it.
///
/// # Errors
/// What keeps the server from starting, as a sentence that says what to change.
pub(crate) fn run(config: &Config, file: Option<&Path>) -> anyhow::Result<()> {
    let rust_log = std::env::var("RUST_LOG").ok();
    logging::start(&config.log, rust_log.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("freshet-http")
        .enable_all()
        .build()
        .context("cannot start the threads that serve HTTP")?;
    let ended = runtime.block_on(async {
        // Before the sockets open: whoever sees a port answer may send the signal at once.
        let signals = Signals::new()?;
        let server = Server::start(config)?;
        server.announce(config, file);
        server.until_signal(signals, config.shutdown.drain).await;
        Ok(())
    });
    runtime.shutdown_timeout(RUNTIME_END_WITHIN);
    ended
}

/// Everything that runs.
struct Server {
    engine: Arc<Engine>,
    hls: Option<Arc<HlsServer>>,
    signaling: Option<Arc<Signaling>>,
    certificates: Option<Arc<Certificates>>,
    records: Option<Arc<RecordServer>>,
    hooks: Hooks,
    http_addresses: Vec<SocketAddr>,
    https_addresses: Vec<SocketAddr>,
    rtmp_addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Server {
    fn start(config: &Config) -> anyhow::Result<Server> {
        let interfaces = candidates::discover();
        let certificates = open_certificates(config, &interfaces.iter().map(|i| i.ip).collect::<Vec<_>>())?;
        let tls = certificates.as_ref().map(|c| c.server_config()).transpose()?;
        let listeners = Listeners::bind(config)?;
        let offered = if config.rtc.interfaces { interfaces } else { Vec::new() };
        let engine = Engine::start(config, &offered)?;

        let http_addresses = listeners.addresses(Purpose::Http);
        let https_addresses = listeners.addresses(Purpose::Https);
        let rtmp_addresses = listeners.addresses(Purpose::Rtmp);
        let mut settings =
            http_settings(config, engine.candidates(), &http_addresses, &https_addresses, &rtmp_addresses);
        settings.forward.own = own_addresses(config, &listeners);
        let limits = ConnectionLimits::new(config, open_file_limit());
        if let Some(signaling) = &mut settings.signaling {
            signaling.max_sockets = limits.signaling;
        }
        let hooks = settings.hooks.clone();
        let state = AppState::new(engine.clone(), settings);
        if let Some(hls) = state.hls().filter(|_| config.hls.as_ref().is_some_and(HlsSettings::is_cut_unasked)) {
            tokio::spawn(Arc::clone(hls).watch());
        }
        tokio::spawn(Arc::clone(state.forwards()).watch());
        let hls = state.hls().map(Arc::clone);
        let records = state.records().map(Arc::clone);
        if let Some(records) = &records {
            tokio::spawn(Arc::clone(records).watch());
        }
        let signaling = state.signaling().cloned();
        if let Some(signaling) = &signaling {
            tokio::spawn(Arc::clone(signaling).run());
        }
        let services =
            Services::new(http::router(state), listener::ice_tcp_to(engine.clone()), tls, limits.http, limits.ice_tcp)
                .with_rtmp(rtmp_service(config, &engine, limits.rtmp));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for bound in listeners.0 {
            tasks.spawn(listener::serve(bound.listener, services.clone(), stopped.clone()));
        }
        if let Some(certificates) = &certificates {
            tokio::spawn(certificates.clone().watch());
        }
        Ok(Server {
            engine,
            hls,
            signaling,
            certificates,
            records,
            hooks,
            http_addresses,
            https_addresses,
            rtmp_addresses,
            stop,
            tasks,
        })
    }

    /// The lines that a person reads after the start.
    fn announce(&self, config: &Config, file: Option<&Path>) {
        let origin = file.map_or_else(|| "defaults".to_owned(), |path| path.display().to_string());
        let shards = self.engine.shard_count();
        info!("freshet {} with {shards} media {}, configuration: {origin}", http::VERSION, plural(shards, "thread"));
        if let Some(address) = self.http_addresses.first() {
            info!("open http://{}/ on this machine", on_this_machine(*address));
        }
        match (&self.certificates, self.https_addresses.first()) {
            (Some(certificates), Some(address)) => {
                let whom = if address.ip().is_loopback() { "on this machine" } else { "from others" };
                let warning = if certificates.is_self_signed() { " (self-signed, the browser warns once)" } else { "" };
                info!("open https://{}/ {whom}{warning}", self.reachable_form(*address));
                info!("certificate SHA-256 {}", certificates.fingerprint());
            }
            _ => warn!(
                "HTTPS is off: browsers give camera and microphone only to pages on this machine, unless a proxy adds TLS"
            ),
        }
        if config.rtmp.enabled && config.rtmp2rtc.enabled && !freshet_bridge::transcode::H264_HAS_ASSEMBLY {
            warn!("built without nasm: removing B-frames for browsers takes more than twice the time it could");
        }
        if let Some(address) = self.rtmp_addresses.first() {
            info!("publish with OBS or ffmpeg to rtmp://{}/live/NAME", self.reachable_form(*address));
        }
        for line in self.engine.candidates().describe(config.rtc.tcp) {
            info!("{line}");
        }
        if config.rtc.candidates.len() > candidates::MAX_CANDIDATES {
            warn!(
                "rtc.candidates has {} entries, only the first {} are offered",
                config.rtc.candidates.len(),
                candidates::MAX_CANDIDATES
            );
        }
    }

    /// A listening address as somebody else would type it.
    fn reachable_form(&self, address: SocketAddr) -> SocketAddr {
        let best = self.engine.candidates().at_start().first().map_or(Ipv4Addr::LOCALHOST.into(), SocketAddr::ip);
        let ip = if address.ip().is_unspecified() { best } else { address.ip() };
        SocketAddr::new(ip, address.port())
    }

    async fn until_signal(mut self, mut signals: Signals, drain: Duration) {
        if signals.next().await == Ending::Drain {
            self.drain(&mut signals, drain).await;
        }
        let sessions = self.engine.session_count();
        info!("ending, closing {sessions} {}", plural(sessions, "session"));
        self.stop.send_replace(true);
        let signaling = self.signaling.take();
        let engine = Arc::clone(&self.engine);
        // Every peer is sent a goodbye before the media threads end.
        let goodbyes = tokio::task::spawn_blocking(move || engine.stop());
        let hls = self.hls.take();
        let files = tokio::task::spawn_blocking(move || hls.inspect(|hls| hls.end(END_WITHIN)));
        let all_ended = timeout(END_WITHIN, async {
            let records = async {
                if let Some(records) = &self.records {
                    records.end().await;
                }
            };
            let sockets = async {
                if let Some(signaling) = &signaling {
                    signaling.end().await;
                }
            };
            tokio::join!(records, sockets);
            let closed = goodbyes.await;
            // A panic there has been told of.
            let _ = files.await;
            while self.tasks.join_next().await.is_some() {}
            closed
        });
        if all_ended.await.is_err() {
            warn!("ended before everything was closed; peers will notice by silence");
        }
        if timeout(HOOKS_WITHIN, self.hooks.drain()).await.is_err() {
            warn!("ended before all hooks were called");
        }
    }

    async fn drain(&self, signals: &mut Signals, limit: Duration) {
        self.engine.drain();
        if let Some(signaling) = &self.signaling {
            signaling.drain();
        }
        let sessions = self.engine.session_count();
        info!("draining: no new sessions, waiting up to {} s for {sessions} to end; SIGTERM ends now", limit.as_secs());
        let deadline = Instant::now() + limit;
        while self.engine.session_count() > 0 {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => {
                    warn!("shutdown.drain_seconds are over, {} sessions left", self.engine.session_count());
                    return;
                }
                () = tokio::time::sleep(DRAIN_POLL_INTERVAL) => {}
                ending = signals.next() => if ending == Ending::Now { return },
            }
        }
    }
}

fn open_certificates(config: &Config, addresses: &[IpAddr]) -> anyhow::Result<Option<Arc<Certificates>>> {
    if !config.https.enabled {
        return Ok(None);
    }
    // systemd's StateDirectory= names the folders that a service may keep things in, with colons between them.
    let state = std::env::var("STATE_DIRECTORY").unwrap_or_default();
    let folder = match state.split(':').next() {
        None | Some("") => PathBuf::from("certs"),
        Some(folder) => PathBuf::from(folder),
    };
    Ok(Some(Arc::new(Certificates::open(&config.https, &folder, addresses)?)))
}

fn http_settings(
    config: &Config,
    candidates: &CandidateSources,
    http: &[SocketAddr],
    https: &[SocketAddr],
    rtmp: &[SocketAddr],
) -> HttpSettings {
    let identity = Identity::new();
    HttpSettings {
        allow_origin: config.http.allow_origin.clone(),
        trusted_proxies: config.http.trusted_proxies.clone(),
        max_body_bytes: config.http.max_body_bytes,
        access: Access { publish: config.publish.tokens.clone(), play: config.play.tokens.clone() },
        ice_servers: config.rtc.ice_servers.clone(),
        http_flv: config.http_flv.enabled,
        hls: config.hls.clone(),
        record: config.record.clone(),
        signaling: config.signaling.clone(),
        hooks: Hooks::start(&config.hooks, &identity),
        identity,
        forward: config.forward.clone(),
        server: ServerInfo {
            candidates: candidates.at_start().iter().map(SocketAddr::to_string).collect(),
            http_port: http.first().map(SocketAddr::port),
            https_port: https.first().map(SocketAddr::port),
            rtmp_port: rtmp.first().map(SocketAddr::port),
            prefer_codec: config.rtc.prefer_codec,
        },
    }
}

/// Where forwards would come back to us.
fn own_addresses(config: &Config, listeners: &Listeners) -> OwnAddresses {
    let bound = listeners.0.iter().filter_map(|bound| bound.listener.local_addr().ok());
    let public = config.rtc.candidates.iter().map(|candidate| candidate.ip).collect();
    OwnAddresses { ports: bound.map(|address| address.port()).collect(), public }
}

fn rtmp_service(config: &Config, engine: &Arc<Engine>, max_connections: usize) -> Option<RtmpService> {
    let access = Access { publish: config.publish.tokens.clone(), play: config.play.tokens.clone() };
    let settings = RtmpSettings { access, publish_timeout: config.rtmp.publish_timeout };
    let server = config.rtmp.enabled.then(|| RtmpServer::new(Arc::clone(engine), settings))?;
    Some(RtmpService::new(server, max_connections))
}

/// What a listener was asked for. Every one speaks all protocols; this decides only which address is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Http,
    Https,
    IceTcp,
    Rtmp,
}

struct Bound {
    asked: SocketAddr,
    purposes: Vec<Purpose>,
    listener: TcpListener,
}

struct Listeners(Vec<Bound>);

impl Listeners {
    /// Opens all TCP sockets. An address that several sections name is opened once.
    fn bind(config: &Config) -> anyhow::Result<Listeners> {
        let mut all = Listeners(Vec::new());
        for address in &config.http.listen {
            all.add(*address, Purpose::Http, "http.listen")?;
        }
        if config.https.enabled {
            for address in &config.https.listen {
                all.add(*address, Purpose::Https, "https.listen")?;
            }
        }
        if config.rtmp.enabled {
            for address in &config.rtmp.listen {
                all.add(*address, Purpose::Rtmp, "rtmp.listen")?;
            }
        }
        if config.rtc.tcp {
            all.add(config.rtc.listen, Purpose::IceTcp, "rtc.listen")?;
        }
        Ok(all)
    }

    fn add(&mut self, address: SocketAddr, purpose: Purpose, key: &str) -> anyhow::Result<()> {
        // Port 0 asks for any free one, each time another.
        if let Some(bound) = self.0.iter_mut().find(|bound| bound.asked == address && address.port() != 0) {
            bound.purposes.push(purpose);
            return Ok(());
        }
        let listener = listener::bind(address, key)?;
        self.0.push(Bound { asked: address, purposes: vec![purpose], listener });
        Ok(())
    }

    fn addresses(&self, purpose: Purpose) -> Vec<SocketAddr> {
        let named = self.0.iter().filter(|bound| bound.purposes.contains(&purpose));
        named.filter_map(|bound| bound.listener.local_addr().ok()).collect()
    }
}

/// Connections at a time. Each one is an open file; a server that runs out of those stops to accept anybody.
#[derive(Debug, PartialEq, Eq)]
struct ConnectionLimits {
    http: usize,
    ice_tcp: usize,
    rtmp: usize,
    /// WebSockets of rooms; they have left HTTP's count.
    signaling: usize,
}

impl ConnectionLimits {
    fn new(config: &Config, open_files: Option<usize>) -> ConnectionLimits {
        let wanted = ConnectionLimits {
            http: config.http.max_connections,
            ice_tcp: config.rtc.max_sessions,
            rtmp: config.rtmp.max_connections,
            signaling: config.signaling.as_ref().map_or(0, |signaling| signaling.max_sockets),
        };
        let Some(open_files) = open_files else { return wanted };
        // Media over TCP is the exception; what is left over is for sockets, certificates and log.
        let limits = ConnectionLimits {
            http: wanted.http.min(open_files * 2 / 5).max(1),
            ice_tcp: wanted.ice_tcp.min(open_files / 5).max(1),
            rtmp: wanted.rtmp.min(open_files / 5).max(1),
            // More than is left over: an address has few, so they are not all taken at once by mistake or by malice.
            signaling: wanted.signaling.min(open_files / 2).max(1),
        };
        if limits.http < wanted.http {
            info!(
                "at most {} HTTP connections, because this process may open only {open_files} files (`ulimit -n`, LimitNOFILE=)",
                limits.http
            );
        }
        limits
    }
}

/// The soft limit of open files, where the system tells it as Linux does.
fn open_file_limit() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

fn on_this_machine(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())) } else { address }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// How a signal wants the server to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Now,
    Drain,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> Ending {
        tokio::select! {
            _ = self.terminate.recv() => Ending::Now,
            _ = self.interrupt.recv() => Ending::Now,
            _ = self.quit.recv() => Ending::Drain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_by_what_the_system_allows() {
        let config = Config::default();
        let wanted = ConnectionLimits { http: 10_000, ice_tcp: 20_000, rtmp: 10_000, signaling: 10_000 };
        assert_eq!(ConnectionLimits::new(&config, None), wanted);
        assert_eq!(ConnectionLimits::new(&config, Some(1_048_576)), wanted);
        let few = ConnectionLimits { http: 409, ice_tcp: 204, rtmp: 204, signaling: 512 };
        assert_eq!(ConnectionLimits::new(&config, Some(1024)), few);
    }

    #[tokio::test]
    async fn an_address_named_twice_is_opened_once() {
        let mut config = Config::default();
        let one: SocketAddr = "127.0.0.1:0".parse().unwrap();
        config.http.listen = vec![one];
        config.https.listen = vec![one];
        config.rtc.tcp = false;
        config.rtmp.enabled = false;
        let free = Listeners::bind(&config).unwrap();
        assert_eq!(free.0.len(), 2, "port 0 is another port each time");
        let port = free.addresses(Purpose::Http)[0];
        drop(free);
        (config.http.listen, config.https.listen, config.rtc.listen) = (vec![port], vec![port], port);
        config.rtc.tcp = true;
        let shared = Listeners::bind(&config).unwrap();
        assert_eq!((shared.0.len(), shared.addresses(Purpose::Https)), (1, vec![port]));
        let said = Listeners::bind(&config).err().unwrap().to_string();
        assert!(said.contains("http.listen") && said.contains(&port.to_string()), "{said}");
    }
}
