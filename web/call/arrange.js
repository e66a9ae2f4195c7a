// Lays the tiles out so that they are as large as the space allows, on a wide screen as on an upright phone.

/** Widest and narrowest shape of a tile: a picture is cropped to it, and a face must stay in. */
const WIDEST = 16 / 9;
const NARROWEST = { landscape: 4 / 3, portrait: 3 / 5 };
const GAP_PX = 10;

/** Keeps `list` arranged. @param {HTMLElement} list @returns {() => void} to be called when tiles come or go */
export function keepArranged(list) {
  const arrange = () => {
    const count = [...list.children].filter((tile) => !isAside(list, tile)).length;
    const { columns, width, height } = bestGrid(count, list.clientWidth, list.clientHeight);
    list.style.setProperty('--columns', String(columns));
    list.style.setProperty('--tile-width', `${width}px`);
    list.style.setProperty('--tile-height', `${height}px`);
  };
  new ResizeObserver(arrange).observe(list);
  return arrange;
}

/** In a call for two one's own picture lies in the corner of the other's. @param {HTMLElement} list @param {Element} tile */
function isAside(list, tile) {
  return list.classList.contains('pair') && tile.classList.contains('self');
}

/**
 * @param {number} count
 * @param {number} width
 * @param {number} height
 */
export function bestGrid(count, width, height) {
  let best = { columns: 1, width: 0, height: 0 };
  const narrowest = width > height ? NARROWEST.landscape : NARROWEST.portrait;
  for (let columns = 1; columns <= Math.max(1, count); columns++) {
    const rows = Math.ceil(Math.max(1, count) / columns);
    const cellWidth = (width - (columns - 1) * GAP_PX) / columns;
    const cellHeight = (height - (rows - 1) * GAP_PX) / rows;
    const tileWidth = Math.max(0, Math.floor(Math.min(cellWidth, cellHeight * WIDEST)));
    const tileHeight = Math.max(0, Math.floor(Math.min(cellHeight, tileWidth / narrowest)));
    if (tileWidth * tileHeight > best.width * best.height) best = { columns, width: tileWidth, height: tileHeight };
  }
  return best;
}
