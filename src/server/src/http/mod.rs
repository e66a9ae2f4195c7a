//! Everything Freshet answers over HTTP: WHIP (RFC 9725), WHEP (draft-ietf-wish-whep-03), SRS's interface, the
//! management API, metrics, the pages, streams as FLV and HLS, and the WebSocket of rooms and calls.
//!
//! [`router`] builds one `axum` router that every listener serves; it knows no sockets. The media side is reached
//! through [`Sessions`] only. Authorisation happens here, before the media side hears of a request.

mod api;
mod auth;
mod delivery;
mod flv;
mod hls;
mod host_names;
mod low_latency;
mod metrics;
mod middleware;
mod offer;
mod pages;
mod problem;
mod qr;
mod sessions;
mod signaling;
mod snapshot;
mod srs;
mod streams;
mod system;
mod whip;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;
use freshet_media::Codec;

use crate::access::Access;
use crate::config::{Config, IceServer, IpBlock};
use crate::forward::{ForwardSettings, Forwards};
use crate::hls::{HlsServer, HlsSettings};
use crate::hooks::Hooks;
use crate::identity::Identity;
use crate::record::{RecordServer, RecordSettings};
use crate::signaling::{Signaling, SignalingSettings};
use crate::snapshots::Snapshots;

pub(crate) use sessions::Sessions;

/// Version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the HTTP side is configured with.
#[derive(Debug, Clone)]
pub(crate) struct HttpSettings {
    /// The origin whose pages may call us, `https://host[:port]`; `*` for every one, empty for none but our own.
    pub(crate) allow_origin: String,
    /// Peers whose `X-Forwarded-For` and `X-Forwarded-Host` are believed.
    pub(crate) trusted_proxies: Vec<IpBlock>,
    /// Largest request body in bytes; more gets 413.
    pub(crate) max_body_bytes: usize,
    /// Who may publish and play.
    pub(crate) access: Access,
    /// STUN and TURN servers that clients are told about.
    pub(crate) ice_servers: Vec<IceServer>,
    /// Whether streams are played as FLV.
    pub(crate) http_flv: bool,
    /// How streams are played as HLS, if they are.
    pub(crate) hls: Option<HlsSettings>,
    /// How streams are recorded, if they may be.
    pub(crate) record: Option<RecordSettings>,
    /// Rooms and calls, if they are on.
    pub(crate) signaling: Option<SignalingSettings>,
    /// Who is called when something happens.
    pub(crate) hooks: Hooks,
    /// The names of this server.
    pub(crate) identity: Identity,
    /// What is forwarded to other servers.
    pub(crate) forward: ForwardSettings,
    /// What the start page shows.
    pub(crate) server: ServerInfo,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings {
            allow_origin: "*".to_owned(),
            trusted_proxies: Vec::new(),
            max_body_bytes: 256 * 1024,
            access: Access::default(),
            ice_servers: Vec::new(),
            http_flv: true,
            hls: None,
            record: None,
            signaling: None,
            hooks: Hooks::default(),
            identity: Identity::new(),
            forward: Config::default().forward,
            server: ServerInfo::default(),
        }
    }
}

/// Facts about this server for the start page.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerInfo {
    /// The addresses that answers carry, `ip:port`, most useful first.
    pub(crate) candidates: Vec<String>,
    /// First plain port.
    pub(crate) http_port: Option<u16>,
    /// First TLS port.
    pub(crate) https_port: Option<u16>,
    /// First port for RTMP.
    pub(crate) rtmp_port: Option<u16>,
    /// The video codec that publishers are steered to.
    pub(crate) prefer_codec: Option<Codec>,
}

/// The TCP connection that a request came on. The listener puts it into the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    /// The other end.
    pub(crate) peer: SocketAddr,
    /// Our end: an address that the client can evidently reach.
    pub(crate) local: SocketAddr,
    /// The request came through TLS.
    pub(crate) tls: bool,
}

/// Routes that wait for their state.
type Routes = Router<Arc<AppState>>;
/// The methods of one path.
type Resource = MethodRouter<Arc<AppState>>;

/// What all handlers share.
pub(crate) struct AppState {
    sessions: Arc<dyn Sessions>,
    hls: Option<Arc<HlsServer>>,
    records: Option<Arc<RecordServer>>,
    signaling: Option<Arc<Signaling>>,
    forwards: Arc<Forwards>,
    snapshots: Arc<Snapshots>,
    settings: HttpSettings,
    responses: middleware::ResponseCounts,
    cpu: system::CpuMeter,
    host_names: host_names::HostNames,
}

impl AppState {
    /// Joins the media side and the settings.
    pub(crate) fn new(sessions: Arc<dyn Sessions>, settings: HttpSettings) -> Arc<AppState> {
        let hls = settings.hls.clone().map(|settings| HlsServer::new(Arc::clone(&sessions), settings));
        let hooks = settings.hooks.clone();
        let records = settings.record.clone().map(|settings| RecordServer::new(Arc::clone(&sessions), settings, hooks));
        let signaling = settings.signaling.clone().map(|settings| Signaling::new(settings, Arc::clone(&sessions)));
        let forwards = Forwards::new(Arc::clone(&sessions), settings.forward.clone());
        let snapshots = Snapshots::new(Arc::clone(&sessions));
        Arc::new(AppState {
            sessions,
            hls,
            records,
            signaling,
            forwards,
            snapshots,
            settings,
            responses: middleware::ResponseCounts::default(),
            cpu: system::CpuMeter::default(),
            host_names: host_names::HostNames::default(),
        })
    }

    /// The recordings, if there may be any.
    pub(crate) fn records(&self) -> Option<&Arc<RecordServer>> {
        self.records.as_ref()
    }

    /// What is forwarded to other servers.
    pub(crate) fn forwards(&self) -> &Arc<Forwards> {
        &self.forwards
    }

    /// The streams that are cut for HLS, if that is on.
    pub(crate) fn hls(&self) -> Option<&Arc<HlsServer>> {
        self.hls.as_ref()
    }

    /// Rooms and calls, if they are on.
    pub(crate) fn signaling(&self) -> Option<&Arc<Signaling>> {
        self.signaling.as_ref()
    }
}

/// The whole HTTP surface. Every path is served with and without a trailing slash, never by redirect, because a
/// redirected `POST` loses its body in many clients.
pub(crate) fn router(state: Arc<AppState>) -> Router {
    let routes = Router::new()
        .merge(whip::routes())
        .merge(srs::routes())
        .merge(signaling::routes())
        .merge(api::routes())
        .merge(snapshot::routes())
        .merge(metrics::routes())
        .merge(pages::routes())
        .merge(qr::routes())
        .fallback(streams::stream_or_nothing)
        .method_not_allowed_fallback(problem::method_not_allowed);
    middleware::wrap(routes, &state).with_state(state)
}

#[cfg(test)]
mod tests;
