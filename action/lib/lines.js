'use strict';

const MAX_PENDING = 64 * 1024;

/** Bytes in pieces become whole lines; `take` gets them joined by newlines, without the last one. */
class LineSplitter {
  constructor(take) {
    this._take = take;
    this._pending = Buffer.alloc(0);
  }

  push(chunk) {
    const all = this._pending.length ? Buffer.concat([this._pending, chunk]) : chunk;
    const end = all.lastIndexOf(0x0a);
    if (end >= 0) this._take(all.subarray(0, end).toString());
    this._pending = Buffer.from(all.subarray(end + 1));
    if (this._pending.length > MAX_PENDING) this.flush(); // a line without an end
  }

  /** Give out an unfinished line. */
  flush() {
    if (this._pending.length) this._take(this._pending.toString());
    this.drop();
  }

  /** Forget an unfinished line. */
  drop() {
    this._pending = Buffer.alloc(0);
  }
}

module.exports = { LineSplitter };
