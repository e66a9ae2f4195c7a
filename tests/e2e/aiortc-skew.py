#!/usr/bin/env python3
"""Plays with aiortc and measures picture against sound by what the server says: RTP time, and the sender reports that
tie it to one clock. No buffer and no busy machine gets between.

  aiortc-skew.py URL [--seconds 8]

Prints one JSON object: ok, skew_ms (median of beep minus flash), spread_ms, pairs, drift_ms (largest disagreement of a
track's sender reports with its first), reports.
"""
import argparse
import asyncio
import json
import os
import sys
import time
from urllib.parse import urljoin

import aiohttp
import numpy
from aiortc import MediaStreamError, RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription, rtcrtpreceiver

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
import stamp  # noqa: E402

SDP = {'content-type': 'application/sdp'}
WIDTH, HEIGHT = 256, 192
CLOCKS = {'video': 90_000, 'audio': stamp.RATE}
WINDOW = 240
BEEP = numpy.exp(-2j * numpy.pi * 1000 * numpy.arange(WINDOW) / stamp.RATE)
# What comes at first is cached, and its time is compressed.
START_SECONDS = 2.5
reports = {'video': [], 'audio': []}


def listen_to_reports():
    handle = rtcrtpreceiver.RTCRtpReceiver._handle_rtcp_packet

    async def note(self, packet):
        if hasattr(packet, 'sender_info') and self._track:
            info = packet.sender_info
            reports[self._track.kind].append((info.ntp_timestamp / 2**32, info.rtp_timestamp))
        return await handle(self, packet)

    rtcrtpreceiver.RTCRtpReceiver._handle_rtcp_packet = note
    # aiortc counts each track's time from its first packet; here the packets' own time is wanted.
    rtcrtpreceiver.TimestampMapper.map = lambda self, timestamp: timestamp


async def flashes(track, found):
    lit, began = None, time.monotonic()
    try:
        while True:
            frame = await track.recv()
            picture = frame.reformat(width=WIDTH, height=HEIGHT, format='rgb24').to_ndarray()
            # The middle of row 9, column 3.
            now = bool(picture[int(9.5 * HEIGHT / stamp.ROWS), int(3.5 * WIDTH / stamp.COLUMNS)].mean() > 127)
            if lit is False and now and time.monotonic() - began > START_SECONDS:
                found.append(frame.pts)
            lit = now
    except MediaStreamError:
        return


async def beeps(track, found):
    loud = False
    try:
        while True:
            frame = await track.recv()
            left = frame.to_ndarray().reshape(-1, 2)[:, 0] / 32768
            for at in range(0, len(left) - WINDOW + 1, WINDOW):
                now = bool(2 * abs((left[at:at + WINDOW] * BEEP).sum()) / WINDOW > 0.15)
                if now and not loud:
                    found.append(frame.pts + at)
                loud = now
    except MediaStreamError:
        return


def distance(later, earlier):
    return (later - earlier + 2**31) % 2**32 - 2**31


def on_the_clock(kind, timestamp):
    moment, rtp = reports[kind][-1]
    return moment + distance(timestamp, rtp) / CLOCKS[kind]


def drift(kind):
    moment, rtp = reports[kind][0]
    return max(abs(now - moment - distance(at, rtp) / CLOCKS[kind]) for now, at in reports[kind]) * 1000


async def play(options, seen, heard):
    pc, tasks = RTCPeerConnection(RTCConfiguration(iceServers=[])), []
    pc.addTransceiver('audio', direction='recvonly')
    video = pc.addTransceiver('video', direction='recvonly')
    capabilities = RTCRtpReceiver.getCapabilities('video').codecs
    video.setCodecPreferences([c for c in capabilities if c.mimeType.lower() in ('video/h264', 'video/rtx')])

    @pc.on('track')
    def on_track(track):
        tasks.append(asyncio.ensure_future(flashes(track, seen) if track.kind == 'video' else beeps(track, heard)))

    await pc.setLocalDescription(await pc.createOffer())
    async with aiohttp.ClientSession() as http:
        async with http.post(options.url, data=pc.localDescription.sdp, headers=SDP) as response:
            body, location = await response.text(), response.headers.get('location')
            if response.status != 201:
                return f'{response.status} {body[:300]}'
        await pc.setRemoteDescription(RTCSessionDescription(body, 'answer'))
        await asyncio.sleep(options.seconds)
        await http.delete(urljoin(options.url, location))
    for task in tasks:
        task.cancel()
    await pc.close()


async def main(options):
    listen_to_reports()
    seen, heard = [], []
    error = await play(options, seen, heard)
    if error:
        return {'ok': False, 'error': error}
    counts = {kind: len(list_) for kind, list_ in reports.items()}
    if not all(counts.values()) or not seen or not heard:
        return {'ok': False, 'error': f'{len(seen)} flashes, {len(heard)} beeps, reports: {counts}'}
    heard_at = [on_the_clock('audio', one) for one in heard]
    pairs = [min((beep - on_the_clock('video', one) for beep in heard_at), key=abs) * 1000 for one in seen]
    pairs = sorted(one for one in pairs if abs(one) < 450)
    return {
        'ok': len(pairs) > 0, 'skew_ms': round(pairs[len(pairs) // 2]) if pairs else None, 'pairs': len(pairs),
        'spread_ms': round(pairs[-1] - pairs[0]) if pairs else None,
        'drift_ms': round(max(drift('audio'), drift('video')), 1), 'reports': counts,
    }


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('url')
    parser.add_argument('--seconds', type=float, default=8)
    print(json.dumps(asyncio.run(main(parser.parse_args()))))
