'use strict';
// A cancelled step: GitHub's runner sends SIGINT, 7.5 s later SIGTERM, 2.5 s later it kills
// (actions/runner, ProcessInvoker). The post step, which runs then too, has more time.

const { AgentError } = require('./errors');
const { pause } = require('./patience');

const AFTER_SIGINT_MS = 9000;
const AFTER_SIGTERM_MS = 1500;
const AGAIN_MS = 250;

class StopOfBuild {
  constructor(agent, buildId, stop, note) {
    this._agent = agent;
    this._place = `/builds/${encodeURIComponent(buildId)}/cancel`;
    this._stop = stop;
    this._note = note;
    this._isClosed = false;
    this._timer = null;
    this._over = new Promise((resolve) => {
      this._giveUp = resolve;
    });
    this._forget = stop.subscribe(() => this._changed());
    if (stop.level) this._changed();
  }

  /** Resolves to null when the step must not wait any longer for the build's end. */
  patienceIsOver() {
    return this._over;
  }

  close() {
    this._isClosed = true;
    this._forget();
    clearTimeout(this._timer);
  }

  _changed() {
    if (!this._isAsking) {
      this._isAsking = true;
      this._note('The step was cancelled; BitBake is asked to stop.');
      this._ask();
    }
    clearTimeout(this._timer);
    this._timer = setTimeout(() => {
      this._note('BitBake has not stopped yet; the post step sees to it.');
      this._giveUp(null);
    }, this._stop.level > 1 ? AFTER_SIGTERM_MS : AFTER_SIGINT_MS);
  }

  async _ask() {
    while (!this._isClosed) {
      try {
        await this._agent.ask('POST', this._place, { body: { level: 'interrupt' } });
        return;
      } catch (error) {
        if (error instanceof AgentError && !error.isPassing) {
          this._note(error.message);
          return;
        }
        await pause(AGAIN_MS);
      }
    }
  }
}

module.exports = { StopOfBuild };
