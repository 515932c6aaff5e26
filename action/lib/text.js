'use strict';
// Strangers' text made safe to show; the same rules as smidr_ci/text.py.

// ECMA-48: CSI and OSC/DCS/APC/PM/SOS strings first, then single escapes, then what is left.
const ESCAPES =
  /\x1b\[[0-?]*[ -\/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -\/]*[0-~]?/g;
// C0 but tab and newline, DEL, C1, line separators, the marks that reorder text (Unicode TR36), and
// halves of characters.
const CONTROLS =
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** The text without escape sequences, control characters and bidirectional overrides. */
function printable(text, { keepNewlines = false } = {}) {
  const clean = String(text).replace(ESCAPES, '').replace(CONTROLS, '');
  return keepNewlines ? clean : clean.replace(/\n/g, ' ');
}

/** At most so many UTF-16 units, no character cut in half; a cut is marked. */
function clip(text, limit) {
  if (text.length <= limit) return text;
  return `${whole(text.slice(0, Math.max(0, limit - 4)))} ...`;
}

/** Pieces of at most so many UTF-16 units; at least one. */
function pieces(text, limit) {
  const found = [];
  let rest = text;
  while (rest.length > limit) {
    const piece = whole(rest.slice(0, limit));
    found.push(piece);
    rest = rest.slice(piece.length);
  }
  found.push(rest);
  return found;
}

/** The longest beginning of at most so many bytes of UTF-8 that ends between characters. */
function clipBytes(text, limit) {
  const raw = Buffer.from(text);
  if (raw.length <= limit) return text;
  let end = Math.max(0, limit);
  while (end > 0 && (raw[end] & 0xc0) === 0x80) end -= 1;
  return raw.subarray(0, end).toString();
}

function whole(text) {
  const last = text.charCodeAt(text.length - 1);
  return last >= 0xd800 && last <= 0xdbff ? text.slice(0, -1) : text;
}

module.exports = { clip, clipBytes, pieces, printable };
