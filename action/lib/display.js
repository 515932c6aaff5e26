'use strict';
// The build in the step's log: a group per stage, notes, BitBake's console, and a word when it is silent.

const QUIET_MS = 60_000;
const LOOK_MS = 1000;
const TITLES = { queued: 'Queued', preparing: 'Preparing', building: 'Building' };

class Display {
  constructor(log, { quietMs = QUIET_MS } = {}) {
    this._log = log;
    this._stage = '';
    this._shown = '';
    this._waitingFor = '';
    this._view = null;
    this._later = [];
    this._timer = setInterval(() => this._speakUp(quietMs), Math.min(LOOK_MS, quietMs));
    this._timer.unref();
  }

  /** Implements what `follow` tells. */
  view(view) {
    this._view = view;
    const stage = view.record.state;
    // What follows BitBake is told at the end: its last lines may come after this view.
    if (TITLES[stage]) this._group(stage);
    this._stage = stage;
    if (view.waiting_for && view.waiting_for !== this._waitingFor) {
      this._log.text(`waiting: ${view.waiting_for}`);
    }
    this._waitingFor = view.waiting_for;
    for (const { text } of view.notes) {
      if (stage in TITLES) this._log.text(text);
      else this._later.push(text);
    }
  }

  log(text) {
    this._group('building'); // BitBake may speak before its view comes
    this._log.text(text);
  }

  note(text) {
    this._log.text(`smidr: ${text}`);
  }

  close() {
    clearInterval(this._timer);
    this._log.endGroup();
    for (const text of this._later) this._log.text(text);
  }

  _group(stage) {
    if (stage === this._shown) return;
    const targets = this._view ? this._view.record.targets.join(' ') : '';
    this._log.group(stage === 'building' ? `${TITLES[stage]} ${targets}`.trim() : TITLES[stage]);
    this._shown = stage;
  }

  _speakUp(quietMs) {
    if (this._view && Date.now() - this._log.lastLineAt >= quietMs) {
      this.note(`${this._stage}${progressOf(this._view.progress)}`);
    }
  }
}

function progressOf(progress) {
  if (!progress) return '';
  if (progress.stage === 'parsing') return `, ${progress.recipes_done} of ${progress.recipes} recipes parsed`;
  if (!progress.tasks_total) return `, ${progress.stage}`;
  const running = Object.values(progress.running || {})
    .slice(0, 4)
    .map((task) => `${task.pn}:${task.task}`);
  const now = running.length ? `, now ${running.join(' ')}` : '';
  return `, ${progress.tasks_completed} of ${progress.tasks_total} tasks${now}`;
}

module.exports = { Display };
