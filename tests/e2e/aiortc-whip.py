#!/usr/bin/env python3
"""Publishes the stamped picture and tones with aiortc.

  aiortc-whip.py URL [--codec H264|VP8] [--seconds 16]

Prints one JSON object: ok (it connected), frames, delete (status of the DELETE).
"""
import argparse
import asyncio
import fractions
import json
import os
import sys
import time
from urllib.parse import urljoin

import aiohttp
import numpy
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from av import AudioFrame, VideoFrame

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
import stamp  # noqa: E402

WIDTH, HEIGHT, FPS = 640, 480, 30
SDP = {'content-type': 'application/sdp'}


class Paced(MediaStreamTrack):
    """Gives out its units in real time."""

    def __init__(self, units_per_second):
        super().__init__()
        self.units_per_second, self.n, self.began = units_per_second, 0, None

    async def wait(self):
        self.began = self.began or time.time()
        await asyncio.sleep(max(0, self.began + self.n / self.units_per_second - time.time()))


class Picture(Paced):
    kind = 'video'

    async def recv(self):
        await self.wait()
        pixels = numpy.frombuffer(stamp.frame(WIDTH, HEIGHT, stamp.now_ms(), self.n), numpy.uint8)
        frame = VideoFrame.from_ndarray(pixels.reshape(HEIGHT, WIDTH, 3), format='rgb24')
        frame.pts, frame.time_base = self.n * 90000 // FPS, fractions.Fraction(1, 90000)
        self.n += 1
        return frame


class Sound(Paced):
    kind = 'audio'

    async def recv(self):
        await self.wait()
        frame = AudioFrame(format='s16', layout='mono', samples=960)
        frame.planes[0].update(stamp.tone(self.n, 960, int(self.began * 1000)))
        frame.sample_rate, frame.pts, frame.time_base = stamp.RATE, self.n, fractions.Fraction(1, stamp.RATE)
        self.n += 960
        return frame


async def main(options):
    # Without this aiortc asks a public STUN server and waits five seconds for it.
    pc, picture, over = RTCPeerConnection(RTCConfiguration(iceServers=[])), Picture(FPS), asyncio.Event()
    pc.addTransceiver(Sound(stamp.RATE), direction='sendonly')
    video = pc.addTransceiver(picture, direction='sendonly')
    capabilities = RTCRtpSender.getCapabilities('video').codecs
    wanted = (f'video/{options.codec.lower()}', 'video/rtx')
    video.setCodecPreferences([c for c in capabilities if c.mimeType.lower() in wanted])
    result = {'ok': False}

    @pc.on('connectionstatechange')
    def changed():
        if pc.connectionState in ('connected', 'failed'):
            over.set()

    await pc.setLocalDescription(await pc.createOffer())
    async with aiohttp.ClientSession() as http:
        async with http.post(options.url, data=pc.localDescription.sdp, headers=SDP) as response:
            body, location = await response.text(), response.headers.get('location')
            if response.status != 201:
                return {**result, 'error': f'{response.status} {body[:300]}'}
        await pc.setRemoteDescription(RTCSessionDescription(body, 'answer'))
        await asyncio.wait_for(over.wait(), 10)
        result['ok'] = pc.connectionState == 'connected'
        await asyncio.sleep(options.seconds)
        async with http.delete(urljoin(options.url, location)) as response:
            result['delete'] = response.status
    await pc.close()
    return {**result, 'frames': picture.n}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('url')
    parser.add_argument('--codec', default='H264')
    parser.add_argument('--seconds', type=float, default=16)
    print(json.dumps(asyncio.run(main(parser.parse_args()))))
