'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { StepError } = require('./errors');

const MAX_CONFIG_BYTES = 1 << 20;
const CUSTOMER = /^[a-z0-9]([a-z0-9._-]{0,46}[a-z0-9])?$/;
const MACHINE = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$/;
const TRUE = new Set(['true', 'True', 'TRUE']);
const FALSE = new Set(['false', 'False', 'FALSE', '']);

/** The step's inputs, checked; raises `StepError` that names the input at fault. */
function readInputs(env) {
  const failOn = text(env, 'fail-on') || 'error';
  if (!['error', 'warning'].includes(failOn)) fault('fail-on', 'is neither error nor warning');
  const machine = text(env, 'machine');
  if (machine && !MACHINE.test(machine)) fault('machine', 'is no name of a machine');
  const workspace = workspaceOf(env);
  const directory = directoryOf(env, workspace);
  return Object.freeze({
    workspace,
    ...configOf(env, workspace, directory),
    targets: text(env, 'target').split(/\s+/).filter(Boolean),
    customer: customerOf(env),
    clean: flag(env, 'clean'),
    machine,
    artifacts: patternsOf(env),
    upload: flag(env, 'upload'),
    failOn,
  });
}

function text(env, name) {
  // The runner makes blanks `_` and keeps hyphens.
  return (env[`INPUT_${name.replace(/ /g, '_').toUpperCase()}`] || '').trim();
}

function flag(env, name) {
  const given = text(env, name);
  if (TRUE.has(given)) return true;
  return FALSE.has(given) ? false : fault(name, 'is neither true nor false');
}

function fault(name, what, hint = '') {
  throw new StepError(`input ${name} ${what}`, hint, `smidr: input ${name}`);
}

function workspaceOf(env) {
  const given = env.GITHUB_WORKSPACE || process.cwd();
  try {
    return fs.realpathSync(given);
  } catch (error) {
    throw new StepError(`GITHUB_WORKSPACE can't be read: ${error.message}`);
  }
}

function directoryOf(env, workspace) {
  const given = text(env, 'working-directory') || '.';
  const found = inside(workspace, workspace, given, 'working-directory');
  if (!fs.statSync(found).isDirectory()) fault('working-directory', `is no directory: ${given}`);
  return found;
}

/** The config's place and text: a file of the checkout, and not what a link of it leads to. */
function configOf(env, workspace, directory) {
  const given = text(env, 'config');
  if (!given) {
    fault('config', 'is missing', 'Name the smidr.yaml: with: {config: smidr.yaml}');
  }
  const config = inside(workspace, directory, given, 'config');
  const stat = fs.statSync(config);
  if (!stat.isFile()) fault('config', `is no file: ${given}`);
  if (stat.size > MAX_CONFIG_BYTES) fault('config', `has more than 1 MiB: ${given}`);
  const raw = fs.readFileSync(config);
  const configText = raw.toString();
  if (!Buffer.from(configText).equals(raw)) fault('config', `is not in UTF-8: ${given}`);
  return { config, configText };
}

function inside(workspace, base, given, name) {
  if (given.includes('\0')) fault(name, 'has a zero byte');
  let found;
  try {
    found = fs.realpathSync(path.resolve(base, given));
  } catch (error) {
    const place = path.relative(workspace, base);
    const where = place ? `${place}/${given}` : given;
    if (error.code !== 'ENOENT') fault(name, `can't be read: ${where} (${error.code})`);
    fault(name, `is not there: ${where}`, 'Is there an actions/checkout step before this one?');
  }
  if (found !== workspace && !found.startsWith(`${workspace}${path.sep}`)) {
    fault(name, `leads out of the workspace: ${given}`);
  }
  return found;
}

/** The repository's name by default, so that repositories wait for their turns apart. */
function customerOf(env) {
  const given = text(env, 'customer');
  if (given && !CUSTOMER.test(given)) {
    fault('customer', 'is not 1 to 48 of a-z, 0-9 and . _ -', 'Begin and end with a letter or digit.');
  }
  const own = (env.GITHUB_REPOSITORY || '')
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .slice(0, 48)
    .replace(/^[._-]+|[._-]+$/g, '');
  return given || own || 'default';
}

function patternsOf(env) {
  const patterns = text(env, 'artifacts').split('\n').map((line) => line.trim()).filter(Boolean);
  return patterns.map((pattern) => ({ pattern, regexp: globRegexp(pattern) }));
}

/** `*` and `?` stop at `/`, `**` does not; matched against paths as the build lists them. */
function globRegexp(pattern) {
  const parts = pattern.split(/(\*\*\/|\*\*|\*|\?)/).map((part) => {
    if (part === '**/') return '(?:.*/)?';
    if (part === '**') return '.*';
    if (part === '*') return '[^/]*';
    return part === '?' ? '[^/]' : part.replace(/[\\^$.|+()[\]{}]/g, '\\$&');
  });
  return new RegExp(`^${parts.join('')}$`, 'su');
}

module.exports = { globRegexp, readInputs };
