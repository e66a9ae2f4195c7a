// What goes wrong between a page and the signaling socket, in words.

/** `code` is one of protocol.md's, or `lost`, `timeout`, `replaced`, `left`. `text` says what is wrong, `hint` what to do. */
export class SignalingError extends Error {
  /** @param {string} code @param {string} text @param {string} hint */
  constructor(code, text, hint) {
    super(text);
    this.name = 'SignalingError';
    this.code = code;
    this.hint = hint;
  }
}

/** Why a socket was closed. @param {number} code @param {string} reason @returns {SignalingError} */
export function closeError(code, reason) {
  switch (code) {
    case 1012:
      return new SignalingError('lost', 'The server restarts.', 'You come back by yourself.');
    case 4001:
      return new SignalingError('replaced', 'You are in this room in another tab or on another device.', 'Go on there, or reload to come back here.');
    case 1003:
    case 1008:
    case 1009:
      return new SignalingError('ended', `The server closed the connection: ${reason || code}.`, 'Reload the page.');
    default:
      return new SignalingError('lost', 'The connection to the server is lost.', 'Check the network; it is tried again.');
  }
}
