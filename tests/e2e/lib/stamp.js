// A picture that carries its own capture time, so that whoever sees it knows how late it is and what is missing.
//
// The frame is a 16 x 12 grid of cells. 48 bits are painted as black/white cells in
// columns 2..13 of rows 1..4 (row-major, most significant bit first):
//   24 bits  wall clock, milliseconds modulo 2^24 (4.6 hours)
//   16 bits  frame counter modulo 2^16
//    8 bits  check = xor of the five bytes above, xor 0xA5
// Rows 6..7 hold four colour patches (red, green, blue, yellow, three columns each).
// Rows 9..10, columns 2..4 flash white for the first 100 ms of every wall-clock second.
// Everything is relative to the frame size, so a scaled copy still reads.
(function (g) {
  'use strict';
  const COLS = 16, ROWS = 12, X0 = 2, Y0 = 1, BW = 12, BH = 4, MOD = 1 << 24;
  const PATCH = [[220, 30, 30], [30, 180, 30], [30, 30, 220], [220, 220, 30]];
  function pack(ms, n) {
    const t = ms % MOD, c = n & 0xffff;
    const b = [(t >> 16) & 255, (t >> 8) & 255, t & 255, c >> 8, c & 255];
    b.push(b[0] ^ b[1] ^ b[2] ^ b[3] ^ b[4] ^ 0xa5);
    return b;
  }
  function draw(ctx, w, h, ms, n, opt) {
    const cw = w / COLS, ch = h / ROWS;
    ctx.fillStyle = '#404040'; ctx.fillRect(0, 0, w, h);
    // something that moves, so that the encoder has work
    const k = n % 120;
    for (let i = 0; i < (opt && opt.motion || 6); i++) {
      ctx.fillStyle = `hsl(${(i * 47 + n * 2) % 360} 70% 50%)`;
      const x = (w * ((i * 0.17 + k / 120) % 1)), y = h * 0.88 + (i % 2) * h * 0.06;
      ctx.fillRect(x, y, w / 12, h / 20);
    }
    const b = pack(ms, n);
    for (let i = 0; i < 48; i++) {
      const on = (b[i >> 3] >> (7 - (i & 7))) & 1;
      ctx.fillStyle = on ? '#fff' : '#000';
      ctx.fillRect(Math.round((X0 + i % BW) * cw), Math.round((Y0 + (i / BW | 0)) * ch), Math.ceil(cw), Math.ceil(ch));
    }
    PATCH.forEach((p, i) => {
      ctx.fillStyle = `rgb(${p.join(',')})`;
      ctx.fillRect((X0 + i * 3) * cw, 6 * ch, 3 * cw, 2 * ch);
    });
    ctx.fillStyle = (ms % 1000) < 100 ? '#fff' : '#000';
    ctx.fillRect(2 * cw, 9 * ch, 3 * cw, 1.6 * ch);
    ctx.fillStyle = '#fff'; ctx.font = `${Math.round(ch * 0.9)}px sans-serif`;
    ctx.fillText(`#${n} ${new Date(ms).toISOString().slice(11, 23)}`, 5.4 * cw, 10.2 * ch);
  }
  let rc = null;
  // Reads a video element / canvas. Returns null when the check byte is wrong.
  function read(src) {
    const W = 256, H = 192;
    if (!rc) { const c = document.createElement('canvas'); c.width = W; c.height = H; rc = c.getContext('2d', { willReadFrequently: true }); }
    rc.drawImage(src, 0, 0, W, H);
    const d = rc.getImageData(0, 0, W, H).data, cw = W / COLS, ch = H / ROWS;
    const px = (cx, cy) => { const o = ((cy | 0) * W + (cx | 0)) * 4; return [d[o], d[o + 1], d[o + 2]]; };
    const lum = p => 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
    const b = [0, 0, 0, 0, 0, 0];
    for (let i = 0; i < 48; i++) {
      const p = px((X0 + i % BW + 0.5) * cw, (Y0 + (i / BW | 0) + 0.5) * ch);
      if (lum(p) > 127) b[i >> 3] |= 128 >> (i & 7);
    }
    const colours = PATCH.map((_, i) => px((X0 + i * 3 + 1.5) * cw, 7 * ch));
    const flash = lum(px(3.5 * cw, 9.8 * ch)) > 127;
    const ok = (b[0] ^ b[1] ^ b[2] ^ b[3] ^ b[4] ^ 0xa5) === b[5];
    const colourError = Math.max(...colours.map((c, i) => Math.max(...c.map((v, j) => Math.abs(v - PATCH[i][j])))));
    if (!ok) return { ok: false, flash, colours, colourError };
    const t = (b[0] << 16) | (b[1] << 8) | b[2];
    const age = ((Date.now() % MOD) - t + MOD) % MOD;
    return { ok: true, t, n: (b[3] << 8) | b[4], age, flash, colours, colourError };
  }
  g.Stamp = { draw, read, MOD, pack };
})(globalThis);
