'use strict';
// Which agent builds: one that the environment names, this user's, or the host's.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { Agent } = require('./agent');
const { AgentError, StepError, UnreachableError } = require('./errors');
const { pause } = require('./patience');

const HOST_HOME = '/var/lib/smidr'; // of the systemd unit
const RESTART_MS = 10_000;
const FOREIGN = new Set(['EACCES', 'EPERM']);

/** An agent that answers, or null when this host has none; raises `StepError` for one of others. */
async function findAgent(env, stop) {
  const named = env.SMIDR_AGENT_SOCKET;
  const candidates = named ? [path.resolve(named)] : socketsOf(env);
  for (const socket of candidates) {
    const agent = await answering(socket, { isWanted: Boolean(named), stop });
    if (agent) return agent;
  }
  if (!named) return null;
  throw new StepError(
    `no agent answers at ${named}, which SMIDR_AGENT_SOCKET names`,
    'Start it with `smidr daemon`, or unset the variable to build without an agent.',
  );
}

/** `$SMIDR_HOME`, else `~/.smidr`. */
function homeOf(env) {
  return path.resolve(env.SMIDR_HOME || path.join(env.HOME || os.homedir(), '.smidr'));
}

function socketsOf(env) {
  const homes = env.SMIDR_HOME ? [homeOf(env)] : [homeOf(env), env.SMIDR_HOST_HOME || HOST_HOME];
  return homes.map((home) => path.join(home, 'agent.sock'));
}

/** Waits a little for an agent that left its socket: it may be just starting again. */
async function answering(socket, { isWanted, stop }) {
  const agent = new Agent(socket);
  const deadline = Date.now() + RESTART_MS;
  for (;;) {
    try {
      if (!isWanted) fs.statSync(socket);
      await agent.ask('GET', '/agent', { timeoutMs: RESTART_MS });
      return agent;
    } catch (error) {
      if (FOREIGN.has(error.code)) throw foreign(socket, '');
      if (error instanceof AgentError && error.status === 403) throw foreign(socket, error.message);
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') {
        if (!isWanted) return null;
      } else if (!(error instanceof UnreachableError) && !error.isPassing) {
        throw error;
      }
    }
    if (Date.now() > deadline || stop.level) return null;
    await pause(250, stop);
  }
}

function foreign(socket, why) {
  const user = os.userInfo().username;
  return new StepError(
    `the agent of this host belongs to another user than the runner, which is ${user}` +
      ` (${socket}${why ? `: ${why}` : ''})`,
    "Run the runner's service as the agent's user (./svc.sh install USER), or the agent as the" +
      " runner's. To build without this agent, set SMIDR_HOME to a directory of the runner's own.",
    'smidr: agent of another user',
  );
}

module.exports = { findAgent, homeOf };
