#!/usr/bin/env python3
"""Plays the stamped picture with FFmpeg (RTMP, HTTP-FLV, a file), and reads the stamps.

  ffmpeg-pull.py URL [--seconds 6] [--warmup 2] [--fast] [--no-audio] [--newer]

--fast: hardly any probing and no buffer at the input, for figures of delay. --newer: the FFmpeg of imageio-ffmpeg.
Prints one JSON object: frames, unreadable, skipped, first_frame_ms, delay_p50_ms, delay_p95_ms, longest_gap_ms,
sound_seconds, log.
"""
import argparse
import json
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
import stamp  # noqa: E402

WIDTH, HEIGHT = 256, 192
FAST = ['-fflags', 'nobuffer', '-flags', 'low_delay', '-probesize', '200000', '-analyzeduration', '300000']


def program(newer):
    if not newer:
        return 'ffmpeg'
    import imageio_ffmpeg
    return imageio_ffmpeg.get_ffmpeg_exe()


class Viewer:
    def __init__(self, warmup):
        self.warmup = warmup
        self.frames = self.unreadable = self.skipped = self.sound_bytes = 0
        self.first = self.last_at = self.last_n = None
        self.gap, self.ages = 0.0, []

    def see(self, picture):
        now = time.time()
        if self.first is None:
            self.first = now
        elif now - self.first >= self.warmup:
            self.gap = max(self.gap, now - self.last_at)
        self.last_at = now
        self.frames += 1
        seen = stamp.read(picture, WIDTH, HEIGHT)
        if not seen:
            self.unreadable += 1
            return
        if self.last_n is not None:
            step = (seen['n'] - self.last_n) & 0xFFFF
            # A counter that goes back is another publisher's.
            self.skipped += step - 1 if 1 < step < 0x8000 else 0
        self.last_n = seen['n']
        if now - self.first >= self.warmup:
            self.ages.append(seen['age'])

    def hear(self, pipe):
        while data := os.read(pipe, 4096):
            self.sound_bytes += len(data)


def main(options):
    sound_out, sound_in = os.pipe()
    words = [program(options.newer), '-hide_banner', '-nostdin', '-loglevel', 'error'] + (FAST if options.fast else []) + [
        '-i', options.url, '-map', '0:v:0', '-vf', f'scale={WIDTH}:{HEIGHT}:flags=neighbor', '-fps_mode', 'passthrough', '-pix_fmt', 'rgb24',
        '-f', 'rawvideo', '-flush_packets', '1', 'pipe:1']
    if not options.no_audio:
        words += ['-map', '0:a:0?', '-ac', '1', '-ar', str(stamp.RATE), '-f', 's16le', '-flush_packets', '1', f'pipe:{sound_in}']
    began = time.time()
    ffmpeg = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(sound_in,))
    os.close(sound_in)
    viewer, log = Viewer(options.warmup), []
    threading.Thread(target=viewer.hear, args=(sound_out,), daemon=True).start()
    reader = threading.Thread(target=lambda: log.extend(ffmpeg.stderr), daemon=True)
    reader.start()
    # A stream that never comes must not be waited for.
    killer = threading.Timer(options.seconds + options.patience, ffmpeg.kill)
    killer.daemon = True
    killer.start()
    size = WIDTH * HEIGHT * 3
    while viewer.first is None or time.time() - viewer.first < options.seconds:
        picture = ffmpeg.stdout.read(size)
        if len(picture) < size:
            break
        viewer.see(picture)
    killer.cancel()
    ffmpeg.kill()
    ffmpeg.wait()
    reader.join(2)
    ages = sorted(viewer.ages)
    at = lambda share: ages[min(len(ages) - 1, int(share * len(ages)))] if ages else None  # noqa: E731
    print(json.dumps({
        'frames': viewer.frames, 'unreadable': viewer.unreadable, 'skipped': viewer.skipped,
        'first_frame_ms': round((viewer.first - began) * 1000) if viewer.first else None,
        'delay_p50_ms': at(0.5), 'delay_p95_ms': at(0.95), 'longest_gap_ms': round(viewer.gap * 1000),
        'sound_seconds': round(viewer.sound_bytes / 2 / stamp.RATE, 1), 'log': b''.join(log).decode(errors='replace')[-800:],
    }))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('url')
    parser.add_argument('--seconds', type=float, default=6)
    parser.add_argument('--warmup', type=float, default=2)
    parser.add_argument('--patience', type=float, default=15)
    parser.add_argument('--fast', action='store_true')
    parser.add_argument('--no-audio', action='store_true')
    parser.add_argument('--newer', action='store_true')
    main(parser.parse_args())
