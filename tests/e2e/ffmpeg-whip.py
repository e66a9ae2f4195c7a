#!/usr/bin/env python3
"""Publishes the stamped picture and tones, H.264 and Opus, with the WHIP muxer of a recent FFmpeg (imageio-ffmpeg).

  ffmpeg-whip.py URL [--seconds 14]

Prints one JSON object: frames, code (FFmpeg's exit status), log (its warnings and errors).
"""
import argparse
import json
import os
import subprocess
import sys
import threading
import time

import imageio_ffmpeg

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
import stamp  # noqa: E402

WIDTH, HEIGHT, FPS = 640, 480, 30


def command(url, sound):
    return [
        imageio_ffmpeg.get_ffmpeg_exe(), '-hide_banner', '-nostdin', '-loglevel', 'warning', '-fflags', '+nobuffer',
        '-probesize', '32', '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', f'{WIDTH}x{HEIGHT}', '-framerate', str(FPS), '-i', 'pipe:0',
        '-probesize', '32', '-f', 's16le', '-ar', str(stamp.RATE), '-ac', '1', '-i', f'pipe:{sound}',
        '-c:v', 'libx264', '-profile:v', 'baseline', '-pix_fmt', 'yuv420p', '-preset', 'veryfast', '-tune', 'zerolatency',
        '-g', '30', '-b:v', '1500k', '-c:a', 'libopus', '-b:a', '64k', '-ac', '2', '-f', 'whip', url,
    ]


def feed_sound(pipe, began, stopped):
    n = 0
    try:
        while not stopped.is_set():
            time.sleep(max(0, began + n / stamp.RATE - time.time()))
            os.write(pipe, stamp.tone(n, 960, int(began * 1000)))
            n += 960
    except BrokenPipeError:
        pass
    os.close(pipe)


def main(options):
    sound_out, sound_in = os.pipe()
    ffmpeg = subprocess.Popen(command(options.url, sound_out), stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(sound_out,))
    os.close(sound_out)
    began, stopped, n = time.time(), threading.Event(), 0
    sound = threading.Thread(target=feed_sound, args=(sound_in, began, stopped), daemon=True)
    sound.start()
    try:
        while time.time() - began < options.seconds and ffmpeg.poll() is None:
            time.sleep(max(0, began + n / FPS - time.time()))
            ffmpeg.stdin.write(stamp.frame(WIDTH, HEIGHT, stamp.now_ms(), n))
            ffmpeg.stdin.flush()
            n += 1
    except BrokenPipeError:
        pass
    stopped.set()
    sound.join(2)
    try:
        _, log = ffmpeg.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        ffmpeg.kill()
        _, log = ffmpeg.communicate()
    print(json.dumps({'frames': n, 'code': ffmpeg.returncode, 'log': log.decode(errors='replace')[-1000:]}))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('url')
    parser.add_argument('--seconds', type=float, default=14)
    main(parser.parse_args())
