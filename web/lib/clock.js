// A clock inside the picture, so that a player can tell how old the frame in front of it is.
//
// The frame is a grid of 16 × 12 cells, all positions relative to its size, so that a scaled copy still reads.
// Columns 2–13 of rows 1–4 hold 48 bits as black and white cells, row by row, highest bit first:
//   24 bits  wall clock in milliseconds, modulo 2^24
//   16 bits  frame number, modulo 2^16
//    8 bits  the exclusive or of the five bytes above and 0xA5
// Rows 6–7 hold four colour patches; the cells at rows 9–10, columns 2–4 are white for the first 100 ms of a second.
// Both computers need the same time: within one machine it is exact, elsewhere as good as NTP.

const COLUMNS = 16;
const ROWS = 12;
const BITS = { column: 2, row: 1, columns: 12, rows: 4 };
const PERIOD_MS = 1 << 24;
const CHECK = 0xa5;
const PATCHES = ['rgb(220 30 30)', 'rgb(30 180 30)', 'rgb(30 30 220)', 'rgb(220 220 30)'];
/** Long enough to be seen and heard together, short enough to be a click. */
export const PULSE_MS = 100;
/** Reading needs the middle of each cell only; four samples a side keep scaling from mixing neighbours. */
const CELL_PX = 4;

/**
 * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {number} timeMs  wall clock
 * @param {number} frame
 */
export function drawTestPicture(context, width, height, timeMs, frame) {
  const cw = width / COLUMNS;
  const ch = height / ROWS;
  context.fillStyle = '#26323a';
  context.fillRect(0, 0, width, height);
  drawBits(context, cw, ch, timeMs, frame);
  PATCHES.forEach((colour, i) => {
    context.fillStyle = colour;
    context.fillRect((2 + i * 3) * cw, 6 * ch, 3 * cw, 2 * ch);
  });
  context.fillStyle = timeMs % 1000 < PULSE_MS ? '#fff' : '#000';
  context.fillRect(2 * cw, 9 * ch, 3 * cw, 1.6 * ch);
  context.fillStyle = '#fff';
  context.font = `600 ${Math.round(ch * 1.05)}px ui-monospace, monospace`;
  context.fillText(new Date(timeMs).toISOString().slice(11, 23), 5.6 * cw, 10.2 * ch);
  // Something that moves evenly, so that a stutter is seen at once.
  const swing = 0.5 - 0.5 * Math.cos((timeMs % 4000) * ((2 * Math.PI) / 4000));
  context.fillStyle = '#4cc2e4';
  context.beginPath();
  context.arc((2.5 + 11 * swing) * cw, 11.3 * ch, ch * 0.4, 0, 2 * Math.PI);
  context.fill();
}

/**
 * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
 * @param {number} cw
 * @param {number} ch
 * @param {number} timeMs
 * @param {number} frame
 */
function drawBits(context, cw, ch, timeMs, frame) {
  const bytes = encode(timeMs, frame);
  for (let bit = 0; bit < 8 * bytes.length; bit++) {
    const on = (bytes[bit >> 3] >> (7 - (bit & 7))) & 1;
    const x = (BITS.column + (bit % BITS.columns)) * cw;
    const y = (BITS.row + Math.floor(bit / BITS.columns)) * ch;
    context.fillStyle = on ? '#fff' : '#000';
    context.fillRect(Math.round(x), Math.round(y), Math.ceil(cw), Math.ceil(ch));
  }
}

/** @param {number} timeMs @param {number} frame */
export function encode(timeMs, frame) {
  const t = Math.floor(timeMs) % PERIOD_MS;
  const bytes = [(t >> 16) & 255, (t >> 8) & 255, t & 255, (frame >> 8) & 255, frame & 255];
  return [...bytes, bytes.reduce((a, b) => a ^ b, CHECK)];
}

/**
 * @param {number[]} bytes
 * @returns {{timeMs: number, frame: number} | null} null when the check fails
 */
export function decode(bytes) {
  if (bytes.slice(0, 5).reduce((a, b) => a ^ b, CHECK) !== bytes[5]) return null;
  return { timeMs: (bytes[0] << 16) | (bytes[1] << 8) | bytes[2], frame: (bytes[3] << 8) | bytes[4] };
}

/** Age of a clock reading; negative when the other clock is ahead. @param {number} stampMs @param {number} nowMs */
export function age(stampMs, nowMs) {
  const forward = ((Math.floor(nowMs) % PERIOD_MS) - stampMs + PERIOD_MS) % PERIOD_MS;
  return forward > PERIOD_MS / 2 ? forward - PERIOD_MS : forward;
}

/** Reads the clock out of a playing video. */
export class ClockReader {
  #context;

  constructor() {
    const canvas = document.createElement('canvas');
    canvas.width = COLUMNS * CELL_PX;
    canvas.height = ROWS * CELL_PX;
    this.#context = canvas.getContext('2d', { willReadFrequently: true });
  }

  /** @param {CanvasImageSource} source @returns {{timeMs: number, frame: number} | null} */
  read(source) {
    const context = this.#context;
    if (!context) return null;
    const width = COLUMNS * CELL_PX;
    context.drawImage(source, 0, 0, width, ROWS * CELL_PX);
    const { data } = context.getImageData(0, 0, width, ROWS * CELL_PX);
    const bytes = [0, 0, 0, 0, 0, 0];
    for (let bit = 0; bit < 48; bit++) {
      const x = (BITS.column + (bit % BITS.columns)) * CELL_PX + CELL_PX / 2;
      const y = (BITS.row + Math.floor(bit / BITS.columns)) * CELL_PX + CELL_PX / 2;
      const at = 4 * (y * width + x);
      if (0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2] > 127) bytes[bit >> 3] |= 128 >> (bit & 7);
    }
    return decode(bytes);
  }
}

/** While a picture carries no clock, looking at it this seldom costs nothing; while it does, this often is smooth. */
const SEARCH_INTERVAL_MS = 1000;
const READ_INTERVAL_MS = 100;

/**
 * Calls back with the delay of every frame looked at, in milliseconds, or null for a picture without a clock.
 * @param {HTMLVideoElement} video
 * @param {(delayMs: number | null) => void} onDelay
 */
export function watchDelay(video, onDelay) {
  const reader = new ClockReader();
  let next = 0;
  let misses = 0;
  /** @param {number} now @param {{expectedDisplayTime?: number}} frame */
  const look = (now, frame) => {
    if (now >= next && video.videoWidth) {
      const stamp = reader.read(video);
      // A single unreadable frame is a compression artefact, not the end of the clock.
      misses = stamp ? 0 : misses + 1;
      next = now + (misses > 5 ? SEARCH_INTERVAL_MS : READ_INTERVAL_MS);
      const shownAt = Date.now() + Math.max(0, (frame.expectedDisplayTime ?? now) - performance.now());
      if (stamp) onDelay(age(stamp.timeMs, shownAt));
      else if (misses > 5) onDelay(null);
    }
    again();
  };
  const again = () => {
    if ('requestVideoFrameCallback' in video) video.requestVideoFrameCallback(look);
    else setTimeout(() => look(performance.now(), {}), READ_INTERVAL_MS);
  };
  again();
}
