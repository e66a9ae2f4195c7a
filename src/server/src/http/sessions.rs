//! What the HTTP side needs of the media side. A trait, so that the router is tested without sockets and shards.

use std::sync::Arc;

use freshet_bridge::fanout::Wire;
use freshet_media::{Frame, StreamKey};

use crate::engine::{
    ClientSnapshot, Engine, LiveRequest, MetricsSnapshot, OpenRequest, Opened, Patched, Published, Refusal, Role,
    SessionToken, StreamSnapshot,
};
use crate::live::{LivePlayer, LiveReader};

/// Sessions and streams, as [`Engine`] keeps them; see there for what each call does.
pub(crate) trait Sessions: Send + Sync {
    fn open(&self, request: OpenRequest) -> Result<Opened, Refusal>;
    fn has_session(&self, token: &SessionToken) -> bool;
    fn patch(&self, token: &SessionToken, if_match: Option<&str>, fragment: &str) -> Result<Patched, Refusal>;
    fn close(&self, token: &SessionToken) -> Option<Role>;
    fn kick(&self, client_id: &str) -> bool;
    fn end_publisher(&self, key: &StreamKey) -> bool;
    fn streams(&self) -> Vec<StreamSnapshot>;
    fn clients(&self) -> Vec<ClientSnapshot>;
    fn publisher(&self, key: &StreamKey) -> Option<ClientSnapshot>;
    fn metrics(&self) -> MetricsSnapshot;
    fn is_draining(&self) -> bool;
    fn published(&self) -> Vec<Published>;
    fn last_keyframe(&self, key: &StreamKey) -> Option<Frame>;
    fn play_live(self: Arc<Self>, request: &LiveRequest, wire: Wire) -> Result<LivePlayer, Refusal>;
    fn read_live(self: Arc<Self>, request: &LiveRequest) -> Result<LiveReader, Refusal>;
}

impl Sessions for Engine {
    fn open(&self, request: OpenRequest) -> Result<Opened, Refusal> {
        Engine::open(self, request)
    }

    fn has_session(&self, token: &SessionToken) -> bool {
        Engine::has_session(self, token)
    }

    fn patch(&self, token: &SessionToken, if_match: Option<&str>, fragment: &str) -> Result<Patched, Refusal> {
        Engine::patch(self, token, if_match, fragment)
    }

    fn close(&self, token: &SessionToken) -> Option<Role> {
        Engine::close(self, token)
    }

    fn kick(&self, client_id: &str) -> bool {
        Engine::kick(self, client_id)
    }

    fn end_publisher(&self, key: &StreamKey) -> bool {
        Engine::end_publisher(self, key)
    }

    fn streams(&self) -> Vec<StreamSnapshot> {
        Engine::streams(self)
    }

    fn clients(&self) -> Vec<ClientSnapshot> {
        Engine::clients(self)
    }

    fn publisher(&self, key: &StreamKey) -> Option<ClientSnapshot> {
        Engine::publisher(self, key)
    }

    fn metrics(&self) -> MetricsSnapshot {
        Engine::metrics(self)
    }

    fn is_draining(&self) -> bool {
        Engine::is_draining(self)
    }

    fn published(&self) -> Vec<Published> {
        Engine::published(self)
    }

    fn last_keyframe(&self, key: &StreamKey) -> Option<Frame> {
        Engine::last_keyframe(self, key)
    }

    fn play_live(self: Arc<Engine>, request: &LiveRequest, wire: Wire) -> Result<LivePlayer, Refusal> {
        Engine::play_live(&self, request, wire)
    }

    fn read_live(self: Arc<Engine>, request: &LiveRequest) -> Result<LiveReader, Refusal> {
        Engine::read_live(&self, request)
    }
}
