'use strict';

/** Something that the user must be told: what happened, and what to do about it. */
class StepError extends Error {
  constructor(message, hint = '', title = 'smidr') {
    super(message);
    this.hint = hint;
    this.title = title;
  }
}

/** What the agent answered in place of what was asked for; `kind` is smidr's word for it. */
class AgentError extends StepError {
  constructor(status, body, headers) {
    const error = (body && body.error) || {};
    const where = error.where ? `${error.where}: ` : '';
    super(`${where}${error.message || `the agent answered with status ${status}`}`, error.hint);
    this.status = status;
    this.kind = error.kind || '';
    this.title = this.kind ? `smidr: ${this.kind}` : 'smidr';
    this.retryAfterMs = 1000 * Math.min(Number(headers['retry-after']) || 5, 60);
  }

  /** Whether the same request may have success later: the agent is busy, or can't answer now. */
  get isPassing() {
    return [408, 429, 503].includes(this.status);
  }
}

/** The agent can't be reached, or went away; `wasSent` when it may have got the request. */
class UnreachableError extends StepError {
  constructor(socket, cause, wasSent) {
    super(`the agent at ${socket} does not answer: ${cause.code || cause.message}`);
    this.code = cause.code || '';
    this.wasSent = wasSent;
  }
}

module.exports = { AgentError, StepError, UnreachableError };
