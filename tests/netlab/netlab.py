#!/usr/bin/env python3
"""A bad network on one machine, in user space, since many kernels come without netem.

Two TUN devices: one here (the server's side, SUBNET.1), one in a network namespace of its own (the clients' side,
SUBNET.2). This program carries the packets between them and delays, loses, duplicates, reorders and rate-limits them.
Nothing leaves the machine: packets to other addresses are dropped.

  netlab.py up [--ns NAME] [--set JSON]    runs until SIGINT or SIGTERM
  netlab.py set JSON                       changes it while it runs; prints settings and counters
  ip netns exec NAME CLIENT                runs a client behind it

JSON: {"up": {...}, "down": {...}, "both": {...}}; up is client to server. Keys, all 0 at first:
  delay    ms one way            jitter   ms, uniform, plus or minus; order is kept
  loss     percent               burst    mean length of a loss in packets (Gilbert model); 0 or 1: independent
  dup      percent               reorder  percent of packets that skip the delay
  rate     kbit/s                queue    ms of queue at that rate before packets are dropped (200)
  nat      1: clients appear as SUBNET.3, as behind a router that has given them a new address
  noudp    1: UDP is dropped, as by a strict firewall
"""
import argparse
import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 1, 0x1000, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
DEFAULTS = dict(delay=0, jitter=0, loss=0, burst=0, dup=0, reorder=0, rate=0, queue=200, nat=0, noudp=0)
UDP = 17


def ip(*words, check=True, ns=None):
    command = ['ip', *(['netns', 'exec', ns, 'ip'] if ns else []), *words]
    subprocess.run(command, check=check, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL)


def tun(name, ns=None):
    """Opens a TUN device, in that namespace if one is named."""
    home = os.open('/proc/self/ns/net', os.O_RDONLY)
    if ns:
        there = os.open(f'/run/netns/{ns}', os.O_RDONLY)
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f'cannot enter the network namespace {ns}')
        os.close(there)
    try:
        device = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack('16sH22x', name.encode(), IFF_TUN | IFF_NO_PI))
    finally:
        if libc.setns(home, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), 'cannot return from the network namespace')
        os.close(home)
    return device


def readdress(packet, offset, address):
    """The packet with the address at `offset` of its IPv4 header replaced. UDP's checksum becomes 0: none."""
    packet = bytearray(packet)
    packet[offset:offset + 4] = address
    header = (packet[0] & 15) * 4
    packet[10:12] = b'\0\0'
    total = sum(struct.unpack(f'!{header // 2}H', packet[:header]))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    packet[10:12] = struct.pack('!H', ~total & 0xFFFF)
    packet[header + 6:header + 8] = b'\0\0'
    return bytes(packet)


class Direction:
    """One way of the wire: its settings, its counters, and the time at which it is free again."""

    def __init__(self, name, out):
        self.name, self.out, self.settings = name, out, dict(DEFAULTS)
        self.free_at = self.last_at = 0.0
        self.in_burst = False
        self.count = dict(packets=0, bytes=0, lost=0, queue_drop=0, dup=0, reordered=0)

    def loses(self):
        p = self.settings['loss'] / 100
        if not p:
            return False
        if self.settings['burst'] <= 1:
            return random.random() < p
        leave = 1 / self.settings['burst']
        enter = p * leave / max(1e-9, 1 - p)
        self.in_burst = random.random() >= leave if self.in_burst else random.random() < enter
        return self.in_burst

    def push(self, packet, now, heap, order):
        s, c = self.settings, self.count
        c['packets'] += 1
        c['bytes'] += len(packet)
        if self.loses():
            c['lost'] += 1
            return
        at = now
        if s['rate']:
            if self.free_at - now > s['queue'] / 1000:
                c['queue_drop'] += 1
                return
            at = self.free_at = max(now, self.free_at) + len(packet) * 8 / (s['rate'] * 1000)
        if s['reorder'] and random.random() * 100 < s['reorder']:
            c['reordered'] += 1
        else:
            at += (s['delay'] + random.uniform(-1, 1) * s['jitter']) / 1000
            at = self.last_at = max(at, self.last_at)
        heapq.heappush(heap, (at, next(order), self, packet))
        if s['dup'] and random.random() * 100 < s['dup']:
            c['dup'] += 1
            heapq.heappush(heap, (at, next(order), self, packet))


class Wire:
    def __init__(self, ns, subnet, device, control_port):
        ip('netns', 'del', ns, check=False)
        ip('netns', 'add', ns)
        server_device, client_device = f'{device}srv', f'{device}cli'
        server, client = tun(server_device), tun(client_device, ns)
        ip('addr', 'add', f'{subnet}.1/24', 'dev', server_device)
        ip('link', 'set', server_device, 'up')
        ip('link', 'set', 'lo', 'up', ns=ns)
        ip('addr', 'add', f'{subnet}.2/24', 'dev', client_device, ns=ns)
        ip('link', 'set', client_device, 'up', ns=ns)
        # Browsers find their address by asking the routing table for a way to the world.
        ip('route', 'add', 'default', 'dev', client_device, ns=ns)
        self.ns = ns
        self.here, self.client, self.alias = (socket.inet_aton(f'{subnet}.{n}') for n in (1, 2, 3))
        self.up, self.down = Direction('up', server), Direction('down', client)
        self.control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.control.bind(('127.0.0.1', control_port))
        self.heap, self.order = [], itertools.count()

    def apply(self, settings):
        for name, values in settings.items():
            for direction in (self.up, self.down) if name == 'both' else (getattr(self, name),):
                direction.settings.update({key: value for key, value in values.items() if key in DEFAULTS})

    def state(self):
        return json.dumps({d.name: {'set': d.settings, 'count': d.count} for d in (self.up, self.down)})

    def answer_control(self):
        message, peer = self.control.recvfrom(65536)
        try:
            self.apply(json.loads(message))
            self.control.sendto(self.state().encode(), peer)
        except (ValueError, AttributeError) as error:
            self.control.sendto(json.dumps({'error': str(error)}).encode(), peer)

    def take(self, packet, direction):
        """Puts a packet that was read on the wire, or drops it when it is for somebody else."""
        if packet[0] >> 4 != 4 or (direction.settings['noudp'] and packet[9] == UDP):
            return
        if direction is self.up and packet[16:20] == self.here:
            if self.up.settings['nat'] and packet[9] == UDP:
                packet = readdress(packet, 12, self.alias)
        elif direction is self.down and packet[16:20] == self.alias and packet[9] == UDP:
            if not self.up.settings['nat']:
                return
            packet = readdress(packet, 16, self.client)
        elif direction is self.down and packet[16:20] == self.client:
            if self.up.settings['nat'] and packet[9] == UDP:
                return
        else:
            return
        direction.push(packet, time.monotonic(), self.heap, self.order)

    def run(self, stopped):
        poll = select.epoll()
        control = self.control.fileno()
        for fd in (self.up.out, self.down.out, control):
            poll.register(fd, select.EPOLLIN)
        while not stopped:
            now = time.monotonic()
            while self.heap and self.heap[0][0] <= now:
                _, _, direction, packet = heapq.heappop(self.heap)
                try:
                    os.write(direction.out, packet)
                except OSError:
                    direction.count['lost'] += 1
            for fd, _ in poll.poll(max(0, self.heap[0][0] - time.monotonic()) if self.heap else 0.5):
                if fd == control:
                    self.answer_control()
                    continue
                # What comes out of the server's device goes down, and the other way round.
                direction = self.down if fd == self.up.out else self.up
                for _ in range(64):
                    try:
                        self.take(os.read(fd, 65536), direction)
                    except OSError:
                        break

    def close(self):
        os.close(self.up.out)
        os.close(self.down.out)
        ip('netns', 'del', self.ns, check=False)


def up(options):
    wire = Wire(options.ns, options.subnet, options.device, options.control)
    wire.apply(json.loads(options.set))
    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.append(True))
    print(f'netlab: server {options.subnet}.1, client {options.subnet}.2 in namespace {options.ns}', flush=True)
    try:
        wire.run(stopped)
    finally:
        print(wire.state())
        wire.close()


def change(options):
    json.loads(options.json)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(2)
        asker.sendto(options.json.encode(), ('127.0.0.1', options.control))
        print(asker.recv(65536).decode())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--control', type=int, default=28799, help='UDP port on loopback for "set"')
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser('up')
    command.add_argument('--ns', default='freshet')
    command.add_argument('--subnet', default='10.77.0')
    command.add_argument('--device', default='lab', help='how the names of the two network devices begin')
    command.add_argument('--set', default='{}')
    command.set_defaults(run=up)
    command = commands.add_parser('set')
    command.add_argument('json')
    command.set_defaults(run=change)
    options = parser.parse_args()
    options.run(options)


if __name__ == '__main__':
    sys.exit(main())
