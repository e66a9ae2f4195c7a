#!/usr/bin/env python3
"""Sends senseless UDP packets at a rate: random bytes, and halves of STUN, DTLS, RTP and RTCP.

  flood.py ADDRESS PORT [--rate 100000] [--seconds 3]

Two processes with eight sockets each. Prints the rate that was reached as JSON.
"""
import argparse
import json
import multiprocessing
import os
import random
import socket
import time

HEADS = [b'', b'\x00\x01\x00\x50\x21\x12\xa4\x42', b'\x16\xfe\xfd\x00\x00', b'\x80\x60', b'\x81\xc9\x00\x07', b'\x17\xfe\xfd\x00\x01']
BATCH = 100


def packets():
    seed = random.Random(1)
    return [head + os.urandom(seed.randrange(0, 900)) for head in HEADS for _ in range(20)]


def flood(address, port, rate, seconds, sent):
    sockets = []
    for _ in range(8):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.connect((address, port))
        one.setblocking(False)
        sockets.append(one)
    load, count, start = packets(), 0, time.monotonic()
    while (elapsed := time.monotonic() - start) < seconds:
        if count > elapsed * rate:
            time.sleep(0.001)
            continue
        send = sockets[count // BATCH % len(sockets)].send
        for i in range(BATCH):
            try:
                send(load[(count + i) % len(load)])
            except OSError:
                pass
        count += BATCH
    sent.put(count / elapsed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('address')
    parser.add_argument('port', type=int)
    parser.add_argument('--rate', type=int, default=100_000)
    parser.add_argument('--seconds', type=float, default=3)
    options = parser.parse_args()
    sent = multiprocessing.Queue()
    work = [multiprocessing.Process(target=flood, args=(options.address, options.port, options.rate / 2, options.seconds, sent)) for _ in range(2)]
    for one in work:
        one.start()
    total = sum(sent.get() for _ in work)
    for one in work:
        one.join()
    print(json.dumps({'rate': round(total)}))


if __name__ == '__main__':
    main()
