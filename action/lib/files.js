'use strict';
// The files that the runner reads after the step: GITHUB_OUTPUT, GITHUB_STATE, GITHUB_STEP_SUMMARY.
// GITHUB_ENV and GITHUB_PATH are never written: later steps would run what a build put there.

const fs = require('node:fs');
const { randomBytes } = require('node:crypto');
const { clipBytes } = require('./text');

const SUMMARY_BYTES = 1000 * 1000; // a file above 1 MiB is refused, not cut

/** `NAME<<DELIMITER` with a delimiter that no value can know. */
function entry(name, value) {
  const delimiter = `smidr_${randomBytes(24).toString('hex')}`;
  return `${name}<<${delimiter}\n${value}\n${delimiter}\n`;
}

class StepFiles {
  constructor(env) {
    this._env = env;
  }

  setOutput(name, value) {
    this._append('GITHUB_OUTPUT', entry(name, value));
  }

  /** For the post step, which finds it as `STATE_<name>`. */
  saveState(name, value) {
    this._append('GITHUB_STATE', entry(name, value));
  }

  /** Add Markdown to the job's page; what does not fit is left out, and `where` says where it is. */
  addSummary(markdown, where) {
    const path = this._env.GITHUB_STEP_SUMMARY;
    if (!path || !markdown) return;
    const used = fs.existsSync(path) ? fs.statSync(path).size : 0;
    const room = SUMMARY_BYTES - used;
    if (room <= 0) return;
    let text = `${markdown.trimEnd()}\n`;
    if (Buffer.byteLength(text) > room) {
      const note = `\n\n*This is not all: ${where}*\n`;
      text = `${clipBytes(text, room - Buffer.byteLength(note))}${note}`;
    }
    if (Buffer.byteLength(text) <= room) fs.appendFileSync(path, text);
  }

  _append(variable, text) {
    const path = this._env[variable];
    if (path) fs.appendFileSync(path, text);
  }
}

module.exports = { StepFiles, SUMMARY_BYTES };
