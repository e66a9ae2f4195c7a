"""The stamped picture and the tones of stamp.js and page.js, for clients in Python.

The picture is a grid of 16 x 12 cells; 48 bits in columns 2..13 of rows 1..4: wall clock in ms (24), frame counter (16),
check (8). Four colour patches in rows 6..7, and in rows 9..10 a patch that is white in the first 100 ms of each second.
"""
import array
import math
import time

COLUMNS, ROWS, LEFT, TOP, WIDE, CLOCK = 16, 12, 2, 1, 12, 1 << 24
PATCHES = [(220, 30, 30), (30, 180, 30), (30, 30, 220), (220, 220, 30)]
RATE = 48000


def now_ms():
    return int(time.time() * 1000)


def _pack(ms, n):
    t, c = ms % CLOCK, n & 0xFFFF
    b = [t >> 16 & 255, t >> 8 & 255, t & 255, c >> 8, c & 255]
    return b + [b[0] ^ b[1] ^ b[2] ^ b[3] ^ b[4] ^ 0xA5]


def frame(width, height, ms, n):
    """One rgb24 frame."""
    xs = [round(i * width / COLUMNS) for i in range(COLUMNS + 1)]
    ys = [round(i * height / ROWS) for i in range(ROWS + 1)]
    grey, black, white = b'\x40\x40\x40', b'\0\0\0', b'\xff\xff\xff'
    cells = [[grey] * COLUMNS for _ in range(ROWS)]
    bits = _pack(ms, n)
    for i in range(48):
        cells[TOP + i // WIDE][LEFT + i % WIDE] = white if bits[i >> 3] >> (7 - (i & 7)) & 1 else black
    for i, patch in enumerate(PATCHES):
        for row in (6, 7):
            for k in range(3):
                cells[row][LEFT + 3 * i + k] = bytes(patch)
    for row in (9, 10):
        for k in (2, 3, 4):
            cells[row][k] = white if ms % 1000 < 100 else black
    cells[11][n // 2 % COLUMNS] = bytes((n * 3 % 256, 255 - n * 5 % 256, 128))
    lines = []
    for r, row in enumerate(cells):
        lines.append(b''.join(c * (xs[i + 1] - xs[i]) for i, c in enumerate(row)) * (ys[r + 1] - ys[r]))
    return b''.join(lines)


def read(buffer, width, height):
    """The counter and the age in ms of an rgb24 frame; None when the check is wrong."""
    cell_w, cell_h = width / COLUMNS, height / ROWS
    bits = [0] * 6
    for i in range(48):
        at = (int((TOP + i // WIDE + 0.5) * cell_h) * width + int((LEFT + i % WIDE + 0.5) * cell_w)) * 3
        if 0.299 * buffer[at] + 0.587 * buffer[at + 1] + 0.114 * buffer[at + 2] > 127:
            bits[i >> 3] |= 128 >> (i & 7)
    if bits[0] ^ bits[1] ^ bits[2] ^ bits[3] ^ bits[4] ^ 0xA5 != bits[5]:
        return None
    return {'n': bits[3] << 8 | bits[4], 'age': (now_ms() - (bits[0] << 16 | bits[1] << 8 | bits[2])) % CLOCK}


def tone(first, count, began_ms):
    """Mono s16le: samples first..first+count of a sound whose sample 0 was at that wall clock."""
    out = array.array('h')
    for i in range(first, first + count):
        value = 0.1 * math.sin(2 * math.pi * 440 * i / RATE)
        if (began_ms + i * 1000 // RATE) % 1000 < 100:
            value += 0.5 * math.sin(2 * math.pi * 1000 * i / RATE)
        out.append(int(value * 32000))
    return out.tobytes()
