'use strict';
// What the step left: a build that still runs is cancelled, an agent of the step's own is let go.

const { Agent } = require('./agent');
const { AgentError, StepError } = require('./errors');
const { StepLog } = require('./log');
const { pause } = require('./patience');
const { dismiss } = require('./private-agent');

// The runner kills a cancelled job's worker 45 s after the request (actions/runner, JobDispatcher),
// of which the step itself may have used ten.
const ORDERLY_MS = 15_000;
const ALL_MS = 27_000;
const LOOK_MS = 300;

/** Tidy up by the state that the step has left in `env`; raises nothing. */
async function release(env) {
  const log = new StepLog();
  try {
    if (env.STATE_build && env.STATE_socket && !env.STATE_over) {
      await end(new Agent(env.STATE_socket), env.STATE_build, log);
    }
  } catch (error) {
    log.annotate('warning', { title: 'smidr' }, `build ${env.STATE_build} may go on: ${error.message}`);
  } finally {
    if (env['STATE_private-agent']) await dismiss(new Agent(env['STATE_private-agent']));
    log.close();
  }
}

async function end(agent, buildId, log) {
  const place = `/builds/${encodeURIComponent(buildId)}`;
  const begun = Date.now();
  let asked = '';
  for (;;) {
    const elapsed = Date.now() - begun;
    const level = elapsed < ORDERLY_MS ? 'interrupt' : 'kill';
    try {
      const record = await agent.ask('GET', place, { timeoutMs: 5000 });
      if (['completed', 'failed', 'cancelled'].includes(record.state)) {
        log.text(`Build ${buildId} is over: ${record.state}.`);
        return;
      }
      if (asked !== level) {
        log.text(`Build ${buildId} is ${record.state}; it is cancelled (${level}).`);
        await agent.ask('POST', `${place}/cancel`, { body: { level }, timeoutMs: 5000 });
        asked = level;
      }
    } catch (error) {
      const isFinal = !(error instanceof StepError) || (error instanceof AgentError && !error.isPassing);
      if (isFinal || elapsed > ALL_MS) throw error;
    }
    if (elapsed > ALL_MS) throw new StepError('it has not stopped yet');
    await pause(LOOK_MS);
  }
}

module.exports = { release };
