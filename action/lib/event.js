'use strict';
// What the event of the workflow says of the code that is checked out. It can only lower trust.

const fs = require('node:fs');
const path = require('node:path');
const { StepError } = require('./errors');

const MAX_EVENT_BYTES = 32 << 20;
// These run with the base's secrets and rights, whatever code a step then checks out.
const PRIVILEGED = new Set(['pull_request_target', 'workflow_run', 'issue_comment']);

/**
 * `isStranger`: build it as a stranger's. `refusal`: the error for a fork's code in a privileged event,
 * which an agent that asks GitHub may allow, and nobody else.
 */
function judgeEvent(env, workspace) {
  const event = env.GITHUB_EVENT_NAME || '';
  const payload = payloadOf(env);
  if (PRIVILEGED.has(event)) {
    const isBase = headOf(workspace) === (env.GITHUB_SHA || '').toLowerCase();
    return { isStranger: !isBase, refusal: !isBase && isForeign(event, payload) ? refusal(event) : null };
  }
  return { isStranger: event.startsWith('pull_request') && isForeign(event, payload), refusal: null };
}

/** Whether a fork's code may be at hand; what does not say whose it is, is anybody's. */
function isForeign(event, payload) {
  if (event === 'workflow_run') {
    const run = payload.workflow_run || {};
    return !isSame(run.head_repository, payload.repository || run.repository);
  }
  const pull = payload.pull_request;
  if (!pull) return true;
  return !isSame((pull.head || {}).repo, (pull.base || {}).repo);
}

function isSame(head, base) {
  return Boolean(head && base && head.id && head.id === base.id);
}

function payloadOf(env) {
  try {
    const place = env.GITHUB_EVENT_PATH;
    if (!place || fs.statSync(place).size > MAX_EVENT_BYTES) return {};
    const found = JSON.parse(fs.readFileSync(place, 'utf8'));
    return found && typeof found === 'object' ? found : {};
  } catch {
    return {};
  }
}

/** The commit that is checked out, as actions/checkout leaves it; empty when that can't be told. */
function headOf(workspace) {
  try {
    const text = fs.readFileSync(path.join(workspace, '.git', 'HEAD'), 'utf8').trim();
    if (!text.startsWith('ref: refs/heads/')) return text.toLowerCase();
    const ref = path.normalize(text.slice('ref: '.length));
    return fs.readFileSync(path.join(workspace, '.git', ref), 'utf8').trim().toLowerCase();
  } catch {
    return '';
  }
}

function refusal(event) {
  return new StepError(
    `the workspace holds code of a fork, in a workflow with the rights of the repository (${event})`,
    'Build pull requests of forks in a workflow `on: pull_request`. Here only the commit of' +
      ' GITHUB_SHA is built.',
    'smidr: code of a fork',
  );
}

module.exports = { judgeEvent };
