'use strict';

const SHORTEST_MS = 100;
const LONGEST_MS = 2000;

/** Resolves after a time, or as soon as `stop` changes. */
function pause(ms, stop) {
  return new Promise((resolve) => {
    const timer = setTimeout(finish, ms);
    const forget = stop ? stop.subscribe(finish) : () => {};
    function finish() {
      clearTimeout(timer);
      forget();
      resolve();
    }
  });
}

/** How long to go on asking an agent that went away: so long after its last sign of life. */
class Patience {
  constructor(limitMs, stop, told) {
    this._limitMs = limitMs;
    this._stop = stop;
    this._told = told;
    this.succeeded();
  }

  succeeded() {
    this._lastMs = Date.now();
    this._waitMs = SHORTEST_MS;
    this._isTold = false;
  }

  /** Wait for the next try; raises the error when it has been long enough. */
  async waitAfter(error) {
    if (Date.now() - this._lastMs > this._limitMs) throw error;
    if (!this._isTold && Date.now() - this._lastMs > 1000) {
      this._told(error);
      this._isTold = true;
    }
    await pause(error.isPassing ? error.retryAfterMs : this._waitMs, this._stop);
    this._waitMs = Math.min(2 * this._waitMs, LONGEST_MS);
  }
}

/** A wish to stop, from the runner's signals: SIGINT, then SIGTERM 7.5 s later. */
class Stop {
  constructor() {
    this.level = 0;
    this._listeners = new Set();
  }

  listenTo(source) {
    source.on('SIGINT', () => this.raise(1));
    source.on('SIGTERM', () => this.raise(2));
  }

  raise(level) {
    if (level <= this.level) return;
    this.level = level;
    for (const listener of [...this._listeners]) listener();
  }

  /** Call `listener` at each change; returns what ends that. */
  subscribe(listener) {
    this._listeners.add(listener);
    return () => this._listeners.delete(listener);
  }
}

module.exports = { Patience, Stop, pause };
