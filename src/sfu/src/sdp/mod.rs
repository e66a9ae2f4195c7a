//! Offers and answers (RFC 8866, RFC 9429) as WHIP and WHEP use them: one offer, one answer, media in one direction.
//!
//! [`Offer::parse`] reads what browsers and encoders really send, leniently where the meaning is clear, and refuses
//! the rest with a sentence that says what is missing. [`negotiate`] picks the sections and codecs. [`answer`] writes
//! the answer from the offer, so that payload types, format parameters, m-line order and mids come back as offered.
//! The peer connection itself is str0m's; for a publisher it is given [`publisher_offer`], a plain re-statement of
//! the sections that were accepted.
//!
//! Renegotiation is not supported; ICE restarts come as fragments ([`Fragment`]).

mod answer;
mod fragment;
mod negotiate;
mod offer;

pub use answer::{AnswerParams, SenderSsrcs, answer, restart_fragment};
pub use fragment::{Fragment, FragmentError};
pub use negotiate::{NegotiateError, Negotiated, NegotiatedMedia, VideoPreference, negotiate, publisher_offer};
pub(crate) use offer::parameter;
pub use offer::{Direction, LineKind, Offer, OfferError, OfferedCodec, OfferedMedia, Setup};

/// Header extensions that are understood, by URI.
pub(crate) mod extension {
    pub(crate) const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
    pub(crate) const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
    pub(crate) const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    pub(crate) const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
    pub(crate) const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
    pub(crate) const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
    pub(crate) const VIDEO_ORIENTATION: &str = "urn:3gpp:video-orientation";
    pub(crate) const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
}
