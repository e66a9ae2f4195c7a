//! Where sessions wait for their first check, and where every shard finds out whose a check is.
//!
//! A session becomes the property of the shard on which its first authentic STUN request arrives, so the kernel's own
//! distribution of flows decides and no packet has to change shards in the common case. The lobby is the one thing
//! that shards share under a lock; only checks from unknown addresses and commands from outside look into it.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use ahash::AHashMap;

use crate::relay::{SessionId, ShardId};
use crate::session::Session;
use crate::transport::Credentials;

/// All sessions of the process, waiting or seated.
#[derive(Debug, Default)]
pub struct Lobby {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_ufrag: AHashMap<String, SessionId>,
    places: AHashMap<SessionId, Place>,
}

#[derive(Debug)]
struct Place {
    ufrags: Vec<String>,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Box<Session>),
    Seated(ShardId),
}

/// What a shard learns about a check from an address that it does not know.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The session is the shard's from now on.
    Yours(Box<Session>),
    /// It has a shard already.
    Seated(ShardId, SessionId),
    /// No session has that user name, or the check is not authentic.
    Nobody,
}

/// Where a command has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// The lobby has dealt with it.
    Done,
    /// To this shard.
    At(ShardId),
    /// There is no such session.
    Gone,
}

impl Lobby {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held leaves maps that are consistent enough to go on with.
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Lets a session wait for its first check.
    pub fn admit(&self, session: Session) {
        let mut inner = self.lock();
        for ufrag in &session.ufrags {
            inner.by_ufrag.insert(ufrag.clone(), session.id);
        }
        let place = Place { ufrags: session.ufrags.clone(), state: State::Waiting(Box::new(session)) };
        if let State::Waiting(session) = &place.state {
            inner.places.insert(session.id, place);
        }
    }

    /// A check for `ufrag` has arrived on `shard`; `is_authentic` decides whether a waiting session goes there.
    pub(crate) fn claim(&self, ufrag: &str, shard: ShardId, is_authentic: impl FnOnce(&Session) -> bool) -> Claim {
        let mut inner = self.lock();
        let Some(id) = inner.by_ufrag.get(ufrag).copied() else { return Claim::Nobody };
        let Some(place) = inner.places.get_mut(&id) else { return Claim::Nobody };
        match &place.state {
            State::Seated(home) => Claim::Seated(*home, id),
            State::Waiting(session) if !is_authentic(session) => Claim::Nobody,
            State::Waiting(_) => match std::mem::replace(&mut place.state, State::Seated(shard)) {
                State::Waiting(session) => Claim::Yours(session),
                State::Seated(home) => Claim::Seated(home, id),
            },
        }
    }

    /// The shard of the session that has this user name, [`None`] inside while it waits.
    pub fn whereabouts(&self, ufrag: &str) -> Option<Option<ShardId>> {
        let inner = self.lock();
        match &inner.places.get(inner.by_ufrag.get(ufrag)?)?.state {
            State::Seated(shard) => Some(Some(*shard)),
            State::Waiting(_) => Some(None),
        }
    }

    /// The shard of a session, [`None`] while it waits and when it has ended.
    pub fn home(&self, id: SessionId) -> Option<ShardId> {
        match self.lock().places.get(&id)?.state {
            State::Seated(shard) => Some(shard),
            State::Waiting(_) => None,
        }
    }

    /// Ends a session that waits; one that is seated has to be ended by its shard.
    pub fn withdraw(&self, id: SessionId) -> Whereabouts {
        let mut inner = self.lock();
        match inner.places.get(&id).map(|p| &p.state) {
            None => Whereabouts::Gone,
            Some(State::Seated(shard)) => Whereabouts::At(*shard),
            Some(State::Waiting(_)) => {
                inner.remove(id);
                Whereabouts::Done
            }
        }
    }

    /// Makes a new user name known, and changes the credentials of a session that waits.
    pub fn restart_ice(&self, id: SessionId, local: &Credentials, remote: &Credentials) -> Whereabouts {
        let mut inner = self.lock();
        let Some(place) = inner.places.get_mut(&id) else { return Whereabouts::Gone };
        place.ufrags.push(local.ufrag.clone());
        // The present name and the one before; older checks are long answered.
        let stale = (place.ufrags.len() > 2).then(|| place.ufrags.remove(0));
        let whereabouts = match &mut place.state {
            State::Waiting(session) => {
                session.restart_ice(local, remote);
                Whereabouts::Done
            }
            State::Seated(shard) => Whereabouts::At(*shard),
        };
        inner.by_ufrag.insert(local.ufrag.clone(), id);
        if let Some(stale) = stale {
            inner.by_ufrag.remove(&stale);
        }
        whereabouts
    }

    /// A seated session has ended.
    pub(crate) fn forget(&self, id: SessionId) {
        self.lock().remove(id);
    }

    /// Removes the waiting sessions whose time is up and names them.
    pub fn expire(&self, now: Instant) -> Vec<SessionId> {
        let mut inner = self.lock();
        let overdue = |place: &Place| matches!(&place.state, State::Waiting(s) if now >= s.connect_deadline());
        let ids: Vec<SessionId> = inner.places.iter().filter(|(_, p)| overdue(p)).map(|(id, _)| *id).collect();
        for id in &ids {
            inner.remove(*id);
        }
        ids
    }

    /// Number of sessions, waiting and seated.
    pub fn len(&self) -> usize {
        self.lock().places.len()
    }

    /// Whether there is no session at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn remove(&mut self, id: SessionId) {
        let Some(place) = self.places.remove(&id) else { return };
        for ufrag in &place.ufrags {
            self.by_ufrag.remove(ufrag);
        }
        // Ten thousand offers that never connect must not leave their tables behind.
        if self.places.capacity() > 64 && self.places.len() < self.places.capacity() / 4 {
            self.places.shrink_to_fit();
            self.by_ufrag.shrink_to_fit();
        }
    }
}
