'use strict';
// An agent for as long as the step, where the host has none: the build looks the same with both.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { Agent } = require('./agent');
const { StepError } = require('./errors');
const { childEnvironment } = require('./children');
const { homeOf } = require('./find');
const { installedPython } = require('./install');
const { pause } = require('./patience');

const READY_MS = 60_000;
const LOOK_MS = 100;
const TAIL = 4000;

/** Start it; null when the step was cancelled meanwhile. Raises `StepError`. */
async function beginPrivateAgent(env, log, files, stop) {
  const environment = childEnvironment(env);
  // The runner kills what carries this at the job's end; drained, the agent ends by itself.
  delete environment.RUNNER_TRACKING_ID;
  const python = env.SMIDR_ACTION_PYTHON || (await installedPython(environment, log, stop));
  if (!python || stop.level) return null;
  const socket = path.join(homeOf(env), 'agent.sock');
  files.saveState('private-agent', socket);
  const agent = new Agent(socket);
  const child = started(python, environment, env);
  await untilReady(agent, child, stop);
  if (stop.level) {
    await dismiss(agent);
    return null;
  }
  const problems = await agent.problems();
  if (problems.length) {
    await dismiss(agent);
    throw new StepError(
      `no build can start on this host: ${problems.join('; ')}`,
      'smidr needs a Docker Engine that the runner may use. `smidr doctor` says more.',
      'smidr: engine',
    );
  }
  agent.isPrivate = true;
  return agent;
}

/** Let it finish what it has, and end. */
async function dismiss(agent) {
  try {
    await agent.ask('POST', '/agent/drain', { timeoutMs: 5000 });
  } catch {
    // It is gone already, or drains.
  }
}

function started(python, environment, env) {
  const folder = fs.mkdtempSync(path.join(env.RUNNER_TEMP || os.tmpdir(), 'smidr-agent-'));
  const output = path.join(folder, 'agent.log');
  const handle = fs.openSync(output, 'wx', 0o600);
  const options = { env: environment, cwd: '/', detached: true, stdio: ['ignore', handle, handle] };
  const child = spawn(python, ['-I', '-m', 'smidr_ci', 'daemon'], options);
  fs.closeSync(handle);
  child.unref();
  const found = { output, ended: null };
  child.on('error', (error) => {
    found.ended = error.message;
  });
  child.on('exit', (code, signal) => {
    found.ended = `it ended with ${signal || code}`;
  });
  return found;
}

async function untilReady(agent, child, stop) {
  const deadline = Date.now() + READY_MS;
  for (;;) {
    const hadEnded = child.ended; // another job's agent may have come first, and then answers
    try {
      await agent.ask('GET', '/agent', { timeoutMs: 5000 });
      return;
    } catch (error) {
      if (stop.level) return;
      if (!hadEnded && Date.now() < deadline) {
        await pause(LOOK_MS, stop);
        continue;
      }
      const why = hadEnded || `no answer in ${READY_MS / 1000} s (${error.message})`;
      throw new StepError(`smidr's agent can't start: ${why}\n${tailOf(child.output)}`);
    }
  }
}

function tailOf(file) {
  try {
    return fs.readFileSync(file, 'utf8').slice(-TAIL).trim();
  } catch {
    return '';
  }
}

module.exports = { beginPrivateAgent, dismiss };
