'use strict';
// The step: find or make an agent, order the build, show it, tell the result.

const fs = require('node:fs');
const { AgentError, StepError, UnreachableError } = require('./errors');
const { Display } = require('./display');
const { StepFiles } = require('./files');
const { StepLog } = require('./log');
const { StopOfBuild } = require('./stopping');
const { findAgent } = require('./find');
const { follow } = require('./follow');
const { readInputs } = require('./inputs');
const { judgeEvent } = require('./event');
const { claimOf } = require('./identity');
const { orderFor } = require('./order');
const { CANCELLED, chosenOf, tell } = require('./outcome');
const { Patience, Stop } = require('./patience');
const { beginPrivateAgent, dismiss } = require('./private-agent');
const { upload } = require('./upload');

const RECONNECT_MS = 600_000;
const START_MS = 300_000;
const NOTHING = { artifacts: [], directory: '' };

/** Run the step; its exit code. Nothing is raised. */
async function main(env, stop = new Stop()) {
  const log = new StepLog();
  try {
    return await step(env, log, stop);
  } catch (error) {
    return report(log, error);
  } finally {
    log.close();
  }
}

/** Say what went wrong, as an annotation; the exit code. */
function report(log, error) {
  log.endGroup();
  if (error instanceof StepError) {
    const message = error.hint ? `${error.message}\n${error.hint}` : error.message;
    log.annotate('error', { title: error.title }, message);
  } else {
    log.annotate('error', { title: 'smidr: a fault of the action' }, `${error && error.stack}`);
  }
  return 1;
}

async function step(env, log, stop) {
  const files = new StepFiles(env);
  checkPlace(env);
  const inputs = readInputs(env);
  const { isStranger: isUntrusted, refusal } = judgeEvent(env, inputs.workspace);
  if (refusal && !env.ACTIONS_ID_TOKEN_REQUEST_URL) throw refusal;
  const order = orderFor(inputs, env, isUntrusted);
  if (isUntrusted) log.text('The code is a stranger\'s: it is built with private caches, and without secrets.');
  const { agent, buildId } = await ordered(order, { env, inputs, refusal, log, files, stop });
  if (!buildId) return CANCELLED;
  const record = await watched(agent, buildId, { env, log, stop });
  if (!record) return CANCELLED;
  files.saveState('over', 'true');
  const { artifacts, summary } = await remains(agent, record, log);
  const code = tell({ record, artifacts, summary, inputs, env, log, files });
  if (inputs.upload && record.state === 'completed') {
    await upload(agent, record, chosenOf(artifacts, inputs), { env, log, files });
  }
  if (agent.isPrivate) await dismiss(agent);
  return code;
}

function checkPlace(env) {
  const isContainerJob = (env.GITHUB_WORKSPACE || '').startsWith('/__w/') && fs.existsSync('/.dockerenv');
  if (isContainerJob) {
    throw new StepError(
      'smidr can\'t build in a job with `container:`, where the host\'s agent and paths are not seen',
      'Take `container:` out of the job: BitBake gets its own container, see `container` in smidr.yaml.',
      'smidr: container job',
    );
  }
}

/** An agent, and the id of the build that it took; empty when the step was cancelled before. */
async function ordered(order, { env, inputs, refusal, log, files, stop }) {
  const claim = await claimOf(env, inputs, log);
  if (refusal && !claim.id_token) throw refusal;
  const patience = new Patience(reconnectMs(env), stop, (error) => log.text(`smidr: waiting: ${error.message}`));
  while (!stop.level) {
    const agent = (await findAgent(env, stop)) || (await beginPrivateAgent(env, log, files, stop));
    if (!agent || stop.level) break;
    try {
      const record = await judged(agent, order, claim, { refusal, log });
      files.saveState('build', record.build_id);
      files.saveState('socket', agent.socket);
      files.setOutput('build-id', record.build_id);
      log.text(`Build ${record.build_id} is queued by the agent at ${agent.socket}.`);
      return { agent, buildId: record.build_id };
    } catch (error) {
      const isPassing = error instanceof AgentError ? error.isPassing : error instanceof UnreachableError;
      if (!isPassing) throw error;
      if (error.wasSent) throw lost(error);
      await patience.waitAfter(error);
    }
  }
  log.text('Cancelled before the build was ordered.');
  return { agent: null, buildId: '' };
}

/** Order it as a step, for which GitHub says how far it is trusted; its record. */
async function judged(agent, order, claim, { refusal, log }) {
  try {
    const body = { build: order, step: claim };
    const { build, reason } = await agent.ask('POST', '/github/steps', { body, timeoutMs: START_MS });
    log.text(`The build is ${build.trust}: ${reason}.`);
    return build;
  } catch (error) {
    // No registration serves this repository: the host trusts its own user's orders.
    if (!(error instanceof AgentError && [404, 405].includes(error.status))) throw error;
    if (refusal) throw refusal;
    return agent.ask('POST', '/builds', { body: order, timeoutMs: START_MS });
  }
}

/** The agent may have the order or not: another one could build the same twice. */
function lost(error) {
  return new StepError(
    `the agent went away while it took the order: ${error.message}`,
    'Run the job again. If the agent has taken the build, `smidr list` shows it, and it may be cancelled there.',
  );
}

/** The final record; null when the step has to end before the build does. */
async function watched(agent, buildId, { env, log, stop }) {
  const display = new Display(log, { quietMs: milliseconds(env.SMIDR_ACTION_QUIET_S) });
  const stopping = new StopOfBuild(agent, buildId, stop, (text) => display.note(text));
  try {
    const options = { reconnectMs: reconnectMs(env), stop };
    return await Promise.race([follow(agent, buildId, display, options), stopping.patienceIsOver()]);
  } catch (error) {
    if (stop.level) return null;
    throw error;
  } finally {
    stopping.close();
    display.close();
  }
}

/** Artifacts and summary; a build is what it is also when these can't be had. */
async function remains(agent, record, log) {
  const place = `/builds/${encodeURIComponent(record.build_id)}`;
  const having = async (asking, otherwise) => {
    try {
      return await asking;
    } catch (error) {
      log.annotate('warning', { title: 'smidr' }, error.message);
      return otherwise;
    }
  };
  const artifacts = await having(agent.ask('GET', `${place}/artifacts`), NOTHING);
  const summary = await having(agent.text(`${place}/summary`), '');
  return { artifacts, summary };
}

function reconnectMs(env) {
  return milliseconds(env.SMIDR_ACTION_RECONNECT_S) || RECONNECT_MS;
}

function milliseconds(seconds) {
  const found = Number(seconds);
  return Number.isFinite(found) && found > 0 ? 1000 * found : undefined;
}

module.exports = { main, report };
