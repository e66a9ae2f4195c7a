#!/usr/bin/env python3
"""Plays with aiortc: decodes, and reads the stamps.

  aiortc-whep.py URL [--codec H264|VP8] [--seconds 6]

Prints one JSON object: ok (frames were decoded), frames, unreadable, skipped, delay_p50_ms, sound_seconds, delete.
"""
import argparse
import asyncio
import json
import os
import sys
from urllib.parse import urljoin

import aiohttp
from aiortc import MediaStreamError, RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
import stamp  # noqa: E402

SDP = {'content-type': 'application/sdp'}
WIDTH, HEIGHT = 256, 192


class Viewer:
    def __init__(self):
        self.frames = self.unreadable = self.skipped = self.samples = 0
        self.ages, self.last = [], None

    async def watch(self, track):
        try:
            while True:
                self.see((await track.recv()).reformat(width=WIDTH, height=HEIGHT, format='rgb24').planes[0])
        except MediaStreamError:
            return

    def see(self, plane):
        self.frames += 1
        raw, pitch = bytes(plane), plane.line_size
        rows = raw if pitch == WIDTH * 3 else b''.join(raw[i * pitch:i * pitch + WIDTH * 3] for i in range(HEIGHT))
        seen = stamp.read(rows, WIDTH, HEIGHT)
        if not seen:
            self.unreadable += 1
            return
        if self.last is not None:
            self.skipped += max(0, ((seen['n'] - self.last) & 0xFFFF) - 1)
        self.last = seen['n']
        self.ages.append(seen['age'])

    async def hear(self, track):
        try:
            while True:
                self.samples += (await track.recv()).samples
        except MediaStreamError:
            return


async def main(options):
    pc, viewer, tasks = RTCPeerConnection(RTCConfiguration(iceServers=[])), Viewer(), []
    pc.addTransceiver('audio', direction='recvonly')
    video = pc.addTransceiver('video', direction='recvonly')
    capabilities = RTCRtpReceiver.getCapabilities('video').codecs
    wanted = (f'video/{options.codec.lower()}', 'video/rtx')
    video.setCodecPreferences([c for c in capabilities if c.mimeType.lower() in wanted])

    @pc.on('track')
    def on_track(track):
        tasks.append(asyncio.ensure_future(viewer.watch(track) if track.kind == 'video' else viewer.hear(track)))

    await pc.setLocalDescription(await pc.createOffer())
    async with aiohttp.ClientSession() as http:
        async with http.post(options.url, data=pc.localDescription.sdp, headers=SDP) as response:
            body, location = await response.text(), response.headers.get('location')
            if response.status != 201:
                return {'ok': False, 'error': f'{response.status} {body[:300]}'}
        await pc.setRemoteDescription(RTCSessionDescription(body, 'answer'))
        await asyncio.sleep(options.seconds)
        async with http.delete(urljoin(options.url, location)) as response:
            deleted = response.status
    for task in tasks:
        task.cancel()
    await pc.close()
    ages = sorted(viewer.ages)
    return {
        'ok': viewer.frames > 0, 'frames': viewer.frames, 'unreadable': viewer.unreadable, 'skipped': viewer.skipped,
        'delay_p50_ms': ages[len(ages) // 2] if ages else None, 'sound_seconds': viewer.samples / stamp.RATE, 'delete': deleted,
    }


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('url')
    parser.add_argument('--codec', default='H264')
    parser.add_argument('--seconds', type=float, default=6)
    print(json.dumps(asyncio.run(main(parser.parse_args()))))
