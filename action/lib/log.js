'use strict';
// What the step prints: workflow commands of our own, and the build's text, which must never be one.
// docs.github.com, "Workflow commands for GitHub Actions"; escapes as in actions/toolkit.

const fs = require('node:fs');
const { randomBytes } = require('node:crypto');
const { clip, pieces, printable } = require('./text');

const MAX_LINE = 1000; // longer lines stall the live log (actions/runner#3582)
const MAX_MESSAGE = 4096; // the runner cuts annotations there
const FULL_MS = 5; // between tries, when a pipe is full that does not block

/** Wait until standard output has taken all; a build goes on when nobody reads any more. */
function writeOut(text) {
  // process.stdout would queue what the runner is too slow for, in memory and without an end.
  for (let rest = Buffer.from(text); rest.length; ) {
    try {
      rest = rest.subarray(fs.writeSync(1, rest));
    } catch (error) {
      if (error.code !== 'EAGAIN') return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FULL_MS);
    }
  }
}

/** The message of a workflow command. */
function escapeData(text) {
  return harmless(printable(text, { keepNewlines: true }))
    .replace(/%/g, '%25')
    .replace(/\r/g, '%0D')
    .replace(/\n/g, '%0A');
}

/** Without the older form of commands: the log's page reads it anywhere, also between tokens. */
function harmless(text) {
  return text.replace(/##\[/g, '## [');
}

/** A property of a workflow command. */
function escapeProperty(text) {
  return escapeData(text).replace(/:/g, '%3A').replace(/,/g, '%2C');
}

/** The step's log. Every line that is no command of ours stands between stop-commands tokens. */
class StepLog {
  constructor(write = writeOut) {
    this._write = write;
    this._token = '';
    this._hasGroup = false;
    this.lastLineAt = Date.now();
  }

  /** Text of whatever origin, a line or more. */
  text(text) {
    let shown = this._fence();
    for (const line of text.split('\n')) {
      shown += `${pieces(harmless(printable(line)), MAX_LINE).join('\n')}\n`;
    }
    this._write(shown);
    this.lastLineAt = Date.now();
  }

  /** Fold what follows, until the next group. Groups don't nest. */
  group(title) {
    this.endGroup();
    this._command('group', {}, title);
    this._hasGroup = true;
  }

  endGroup() {
    if (this._hasGroup) this._command('endgroup', {}, '');
    this._hasGroup = false;
  }

  /** `level` is error, warning or notice; `properties` may be title, file, line and col. */
  annotate(level, properties, message) {
    this._command(level, properties, clip(message, MAX_MESSAGE));
  }

  /** Keep a secret out of all later text. */
  mask(secret) {
    if (secret.trim()) this._command('add-mask', {}, secret);
  }

  /** End what is open. */
  close() {
    this.endGroup();
    this._unfence();
  }

  _command(name, properties, message) {
    this._unfence();
    const listed = Object.entries(properties)
      .filter(([, value]) => value !== undefined && value !== null && value !== '')
      .map(([key, value]) => `${key}=${escapeProperty(String(value))}`)
      .join(',');
    this._write(`::${name}${listed ? ` ${listed}` : ''}::${escapeData(message)}\n`);
  }

  _fence() {
    if (this._token) return '';
    // A fresh one each time: whoever reads the log while it grows learns only used ones.
    this._token = randomBytes(24).toString('hex');
    return `::stop-commands::${this._token}\n`;
  }

  _unfence() {
    if (this._token) this._write(`::${this._token}::\n`);
    this._token = '';
  }
}

module.exports = { StepLog, escapeData, escapeProperty };
