#!/usr/bin/env python3
"""Publishes the stamped picture and tones with FFmpeg, encoded as told, until the time is up or SIGTERM comes.

  ffmpeg-push.py URL [--seconds 20] [--size 640x480] [--fps 30] [--filter F] [--no-video] [--no-audio] [--newer] -- OUTPUT-OPTIONS

OUTPUT-OPTIONS are FFmpeg's, codecs and all; the format is FLV. --newer: the FFmpeg of imageio-ffmpeg, which knows
Enhanced RTMP. Prints one JSON object: frames, code (FFmpeg's exit status), log (its warnings and errors).
"""
import argparse
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))
import stamp  # noqa: E402

# FFmpeg enlarges this, which costs less than painting the full size in Python.
WIDTH, HEIGHT = 256, 192
stopped = threading.Event()


def program(newer):
    if not newer:
        return 'ffmpeg'
    import imageio_ffmpeg
    return imageio_ffmpeg.get_ffmpeg_exe()


def command(options, sound):
    words = [program(options.newer), '-hide_banner', '-nostdin', '-loglevel', 'warning']
    if not options.no_video:
        words += ['-fflags', '+nobuffer', '-probesize', '32', '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', f'{WIDTH}x{HEIGHT}',
                  '-framerate', str(options.fps), '-thread_queue_size', '64', '-i', 'pipe:0']
    if not options.no_audio:
        words += ['-probesize', '32', '-f', 's16le', '-ar', str(stamp.RATE), '-ac', '1', '-thread_queue_size', '64', '-i', f'pipe:{sound}']
    if not options.no_video:
        filters = [f'scale={options.size.replace("x", ":")}:flags=neighbor', 'setsar=1', options.filter]
        words += ['-vf', ','.join(one for one in filters if one), '-pix_fmt', 'yuv420p']
    return words + options.output + ['-flvflags', 'no_duration_filesize', '-f', 'flv', '-y', options.url]


def wait_until(moment):
    time.sleep(max(0, moment - time.time()))


def feed_sound(pipe, began):
    n = 0
    try:
        while not stopped.is_set():
            wait_until(began + n / stamp.RATE)
            os.write(pipe, stamp.tone(n, 960, round(began * 1000)))
            n += 960
    except OSError:
        pass
    os.close(pipe)


def feed_picture(pipe, began, options, ffmpeg):
    """Stamps are those moments that the frames' timestamps stand for, so that a late frame shows as late."""
    n = 0
    try:
        while not stopped.is_set() and ffmpeg.poll() is None and time.time() - began < options.seconds:
            moment = began + n / options.fps
            wait_until(moment)
            if not options.no_video:
                pipe.write(stamp.frame(WIDTH, HEIGHT, round(moment * 1000), n))
                pipe.flush()
            n += 1
    except OSError:
        pass
    return n


def main(options):
    sound_out, sound_in = os.pipe()
    ffmpeg = subprocess.Popen(command(options, sound_out), stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(sound_out,))
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    os.close(sound_out)
    log = []
    reader = threading.Thread(target=lambda: log.extend(ffmpeg.stderr), daemon=True)
    reader.start()
    # On the grid of frames, so that a flash and its beep begin at the same moment.
    began = math.ceil(time.time() * options.fps) / options.fps
    sound = threading.Thread(target=feed_sound, args=(sound_in, began), daemon=True)
    sound.start()
    n = feed_picture(ffmpeg.stdin, began, options, ffmpeg)
    stopped.set()
    try:
        ffmpeg.stdin.close()
    except OSError:
        pass
    sound.join(2)
    try:
        ffmpeg.wait(10)
    except subprocess.TimeoutExpired:
        ffmpeg.kill()
        ffmpeg.wait()
    reader.join(2)
    print(json.dumps({'frames': n, 'code': ffmpeg.returncode, 'log': b''.join(log).decode(errors='replace')[-1500:]}))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('url')
    parser.add_argument('--seconds', type=float, default=20)
    parser.add_argument('--size', default='640x480')
    parser.add_argument('--fps', type=int, default=30)
    parser.add_argument('--filter', default='')
    parser.add_argument('--no-video', action='store_true')
    parser.add_argument('--no-audio', action='store_true')
    parser.add_argument('--newer', action='store_true')
    end = sys.argv.index('--')
    arguments = parser.parse_args(sys.argv[1:end])
    arguments.output = sys.argv[end + 1:]
    main(arguments)
