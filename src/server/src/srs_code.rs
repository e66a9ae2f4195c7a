//! SRS's error numbers (`srs_kernel_error.hpp`), for the cases that have one: clients of its API tell by them what
//! happened.

/// What HTTP itself refuses has no number in SRS; this is the one that it answers most often.
pub(crate) const HTTP_REQUEST: u32 = 400;
/// `SecurityDeny`.
pub(crate) const SECURITY_DENY: u32 = 1053;
/// `ConnectionsExceed`.
pub(crate) const CONNECTIONS_EXCEED: u32 = 1074;
/// `RtcSdpDecode`.
pub(crate) const SDP_DECODE: u32 = 5012;
/// `RtcSdpNegotiate`.
pub(crate) const SDP_NEGOTIATE: u32 = 5018;
/// `RtcApiJson`.
pub(crate) const API_JSON: u32 = 5019;
/// `RtcStreamBusy`.
pub(crate) const STREAM_BUSY: u32 = 5020;
/// `RtcDisabled`: the stream does not come over WebRTC.
pub(crate) const NO_RTC: u32 = 5021;
/// `RtcNoSession`.
pub(crate) const NO_SESSION: u32 = 5022;
/// `RtcInvalidParams`.
pub(crate) const INVALID_PARAMS: u32 = 5023;
/// The track's codec is not supported.
pub(crate) const CODEC: u32 = 5026;
/// The stream has no publisher.
pub(crate) const NO_PUBLISHER: u32 = 5028;
/// `RtcInvalidSession`.
pub(crate) const INVALID_SESSION: u32 = 5036;
/// `RtcInvalidIce`.
pub(crate) const INVALID_ICE: u32 = 5037;
