//! The picture's half: depacketised, and given the times of its packets.

use std::collections::VecDeque;

use freshet_media::depacketize::{Depacketizer, Picture, Piece};
use freshet_media::{Frame, JitterPacket, MediaTime};

pub(super) struct PictureLeg {
    depacketizer: Depacketizer,
    /// RTP time and time of the picture that is being put together, and of the one before.
    times: [Option<(u32, MediaTime)>; 2],
    pictures: Vec<Picture>,
}

impl PictureLeg {
    pub(super) fn new(depacketizer: Depacketizer) -> PictureLeg {
        PictureLeg { depacketizer, times: [None; 2], pictures: Vec::new() }
    }

    pub(super) fn awaits_keyframe(&self) -> bool {
        self.depacketizer.awaits_keyframe()
    }

    pub(super) fn lost(&mut self) {
        self.depacketizer.lost();
    }

    pub(super) fn take(
        &mut self,
        time: MediaTime,
        packet: &JitterPacket,
        ready: &mut VecDeque<Frame>,
    ) -> Result<(), String> {
        if self.times[0].is_none_or(|(timestamp, _)| timestamp != packet.timestamp) {
            self.times = [Some((packet.timestamp, time)), self.times[0]];
        }
        let piece = Piece { timestamp: packet.timestamp, marker: packet.marker, payload: &packet.payload };
        let pushed = self.depacketizer.push(piece, &mut self.pictures);
        for picture in self.pictures.drain(..) {
            let known = self.times.iter().flatten().find(|(timestamp, _)| *timestamp == picture.timestamp);
            let at = known.map_or(time, |(_, time)| *time);
            let Picture { is_keyframe, config, data, .. } = picture;
            ready.push_back(Frame { config, dts: at, pts: at, is_keyframe, data });
        }
        pushed.map_err(|error| error.to_string())
    }
}
