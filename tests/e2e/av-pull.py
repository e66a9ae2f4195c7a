#!/usr/bin/env python3
"""Plays the stamped picture and its beeps with libav, by their time stamps.

  av-pull.py URL [--seconds 12] [--warmup 2]

Prints one JSON object: pictures, skipped and longest_gap_ms of the publisher's counter and of the wall clock after the
warm-up, sizes as they change, sound_seconds, backwards (time stamps that do not grow), pairs of flash and beep, skew_ms
(median of beep minus flash in time stamps), and the spread of it.
"""
import argparse
import json
import os
import sys
import time

import av
import numpy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
import stamp  # noqa: E402

WIDTH, HEIGHT = 256, 192
BLOCK = 240


class Eyes:
    def __init__(self, warmup):
        self.warmup, self.began = warmup, None
        self.pictures = self.skipped = self.unreadable = self.backwards = 0
        self.last_at = self.last_n = self.last_pts = None
        self.gap, self.sizes, self.flashes, self.lit = 0.0, [], [], None

    def see(self, frame):
        now = time.time()
        self.began = self.began or now
        size = f'{frame.width}x{frame.height}'
        if size not in self.sizes[-1:]:
            self.sizes.append(size)
        pixels = frame.to_ndarray(format='rgb24', width=WIDTH, height=HEIGHT, interpolation='POINT')
        self.backwards += self.last_pts is not None and frame.time <= self.last_pts
        lit = int(pixels[int(9.8 * HEIGHT / 12), int(3.5 * WIDTH / 16)].sum()) > 380
        if lit and self.lit is False:
            self.flashes.append(frame.time)
        self.lit, self.last_pts = lit, frame.time
        seen = stamp.read(pixels.tobytes(), WIDTH, HEIGHT)
        if now - self.began >= self.warmup:
            self.pictures += 1
            self.gap = max(self.gap, now - self.last_at)
            self.unreadable += seen is None
            if seen and self.last_n is not None:
                step = (seen['n'] - self.last_n) & 0xFFFF
                self.skipped += step - 1 if 1 < step < 0x8000 else 0
        self.last_at = now
        if seen:
            self.last_n = seen['n']


class Ears:
    """Finds where the 1 kHz beep begins, 5 ms at a time."""

    def __init__(self):
        self.beeps, self.on, self.seconds, self.backwards, self.last = [], None, 0.0, 0, None
        at = numpy.arange(BLOCK) / stamp.RATE
        self.wave = numpy.exp(-2j * numpy.pi * 1000 * at)

    def hear(self, frame):
        self.backwards += self.last is not None and frame.time <= self.last
        self.last = frame.time
        samples = frame.to_ndarray().astype(float)
        mono = samples[0] if frame.format.is_planar else samples.reshape(-1, len(frame.layout.channels))[:, 0]
        self.seconds += frame.samples / frame.sample_rate
        for i in range(0, len(mono) - BLOCK + 1, BLOCK):
            on = bool(abs(numpy.dot(mono[i:i + BLOCK], self.wave)) / BLOCK > 0.08)
            if on and self.on is False:
                self.beeps.append(frame.time + i / frame.sample_rate)
            self.on = on


def main(options):
    eyes, ears, error = Eyes(options.warmup), Ears(), None
    try:
        with av.open(options.url, timeout=(15, 15), options={'fflags': 'nobuffer', 'probesize': '200000', 'analyzeduration': '500000'}) as source:
            for frame in source.decode():
                eyes.see(frame) if isinstance(frame, av.VideoFrame) else ears.hear(frame)
                if eyes.began and time.time() - eyes.began > options.seconds:
                    break
    except av.error.FFmpegError as problem:
        error = str(problem)
    lags = sorted(beep - flash for flash in eyes.flashes for beep in ears.beeps if abs(beep - flash) < 0.45)
    milli = lambda seconds: round(seconds * 1000)  # noqa: E731
    return {
        'pictures': eyes.pictures, 'skipped': eyes.skipped, 'unreadable': eyes.unreadable, 'longest_gap_ms': milli(eyes.gap),
        'sizes': eyes.sizes, 'sound_seconds': round(ears.seconds, 1), 'backwards': eyes.backwards + ears.backwards, 'pairs': len(lags),
        'skew_ms': milli(lags[len(lags) // 2]) if lags else None, 'spread_ms': milli(lags[-1] - lags[0]) if lags else None, 'error': error,
    }


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('url')
    parser.add_argument('--seconds', type=float, default=12)
    parser.add_argument('--warmup', type=float, default=2)
    print(json.dumps(main(parser.parse_args())))
