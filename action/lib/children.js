'use strict';
// Other programs: with an environment that holds nothing of the job's secrets, and never by a shell.

const { spawn } = require('node:child_process');
const { LineSplitter } = require('./lines');
const { WITHHELD } = require('./order');

const MAX_OUTPUT = 64 * 1024;
// A module of the workspace must not come before ours; the runner's files are for this step alone.
const OF_THE_STEP = /^(PYTHON(PATH|HOME|STARTUP|SAFEPATH)|GITHUB_(OUTPUT|STATE|ENV|PATH|STEP_SUMMARY))$/;

/** The step's environment without what opens something. */
function childEnvironment(env) {
  const kept = Object.entries(env).filter(([name]) => !WITHHELD.test(name) && !OF_THE_STEP.test(name));
  return Object.fromEntries(kept);
}

/** Run a program to its end, its lines in the log; the exit code, or null when it was stopped. */
function runShown(program, args, { env, log, stop }) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
    const forget = stop.subscribe(() => child.kill('SIGKILL'));
    for (const stream of [child.stdout, child.stderr]) {
      const lines = new LineSplitter((text) => log.text(text));
      stream.on('data', (chunk) => lines.push(chunk));
      stream.on('end', () => lines.flush());
    }
    child.on('error', (error) => {
      forget();
      reject(error);
    });
    child.on('close', (code) => {
      forget();
      resolve(stop.level ? null : code);
    });
  });
}

/** What a program says on standard output; null when it fails or is not there. */
function outputOf(program, args, env) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { env, cwd: '/', stdio: ['ignore', 'pipe', 'ignore'], timeout: 30_000 });
    let text = '';
    child.stdout.on('data', (chunk) => {
      if (text.length < MAX_OUTPUT) text += chunk;
    });
    child.on('error', () => resolve(null));
    child.on('close', (code) => resolve(code === 0 ? text.trim() : null));
  });
}

module.exports = { childEnvironment, outputOf, runShown };
