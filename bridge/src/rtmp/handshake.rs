//! The handshake, §5.2, plain and with digests: `rml_rtmp`'s, fed no more than it may take.

use rml_rtmp::handshake::{Handshake as Library, HandshakeProcessResult, PeerType};

use super::RtmpError;

/// C0, C1 and C2, or S0, S1 and S2. The library buffers what it gets, so it gets no more than these.
const PEER_BYTES: usize = 1 + 2 * 1536;

/// One half of a handshake.
pub(super) struct Handshake {
    library: Library,
    missing: usize,
}

impl Handshake {
    /// The server's half.
    pub(super) fn server() -> Handshake {
        Handshake { library: Library::new(PeerType::Server), missing: PEER_BYTES }
    }

    /// The client's half, which speaks first: appends C0 and C1.
    pub(super) fn client(out: &mut Vec<u8>) -> Result<Handshake, RtmpError> {
        let mut library = Library::new(PeerType::Client);
        let hello = library.generate_outbound_p0_and_p1();
        out.extend_from_slice(&hello.map_err(|error| RtmpError::Handshake(error.to_string()))?);
        Ok(Handshake { library, missing: PEER_BYTES })
    }

    /// Takes bytes, appends what to answer, and says how many it took and whether it is done.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), RtmpError> {
        let taken = bytes.len().min(self.missing);
        if taken == 0 {
            return Ok((0, self.missing == 0));
        }
        self.missing -= taken;
        let result = self.library.process_bytes(&bytes[..taken]);
        match result.map_err(|error| RtmpError::Handshake(error.to_string()))? {
            HandshakeProcessResult::InProgress { response_bytes } => {
                out.extend_from_slice(&response_bytes);
                Ok((taken, false))
            }
            HandshakeProcessResult::Completed { response_bytes, .. } => {
                out.extend_from_slice(&response_bytes);
                Ok((taken, true))
            }
        }
    }
}
