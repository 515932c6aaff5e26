'use strict';
// smidr of exactly this checkout of the action, in a virtual environment of its own.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { createHash, randomBytes } = require('node:crypto');
const { StepError } = require('./errors');
const { outputOf, runShown } = require('./children');

const ROOT = path.resolve(__dirname, '..', '..');
const PYTHONS = ['python3', 'python3.14', 'python3.13', 'python3.12', 'python3.11'];
const ABOUT =
  'import sys, venv, ensurepip; assert sys.version_info >= (3, 11); print(sys.executable, sys.version_info[:3])';

/** A Python that has smidr; null when the step was cancelled meanwhile. */
async function installedPython(env, log, stop) {
  const base = path.join(env.RUNNER_TOOL_CACHE || env.RUNNER_TEMP || os.tmpdir(), 'smidr');
  const { python, about } = await foundPython(env);
  const key = keyOf(about);
  const note = path.join(base, `${key}.path`);
  const known = knownAt(note, base);
  if (known) return known;
  const folder = path.join(base, `${key}-${randomBytes(6).toString('hex')}`);
  fs.mkdirSync(base, { recursive: true });
  log.group('Installing smidr');
  log.text(`no agent runs on this host: installing smidr into ${folder}`);
  try {
    const installed = path.join(folder, 'bin', 'python');
    const steps = [
      [python, ['-I', '-m', 'venv', folder]],
      [installed, ['-I', '-m', 'pip', 'install', '--disable-pip-version-check', '--no-input', '--quiet', ROOT]],
    ];
    for (const [program, args] of steps) {
      const code = await runShown(program, args, { env, log, stop });
      if (code === null) return giveUp(folder);
      if (code !== 0) throw failure(args, code);
    }
    const draft = `${note}-${randomBytes(6).toString('hex')}`;
    fs.writeFileSync(draft, folder);
    fs.renameSync(draft, note); // another job may have done the same: either will do
    return installed;
  } catch (error) {
    giveUp(folder);
    throw error;
  } finally {
    log.endGroup();
  }
}

function giveUp(folder) {
  fs.rmSync(folder, { recursive: true, force: true });
  return null;
}

function failure(args, code) {
  return new StepError(
    `smidr can't be installed: python ${args.slice(1, 3).join(' ')} ended with ${code}`,
    'The log above says why. On a host without a package index, run an agent (smidr daemon), or set' +
      ' SMIDR_ACTION_PYTHON to a Python that has smidr.',
  );
}

async function foundPython(env) {
  const own = env.pythonLocation ? [path.join(env.pythonLocation, 'bin', 'python3')] : [];
  for (const python of [...own, ...PYTHONS]) {
    const about = await outputOf(python, ['-I', '-c', ABOUT], env);
    if (about) return { python, about };
  }
  throw new StepError(
    'no agent runs on this host, and without one smidr needs Python 3.11 or newer with venv',
    'Put actions/setup-python before this step, install python3-venv, or run an agent (smidr daemon).',
  );
}

/** Names the action's code and the Python that it is for. */
function keyOf(about) {
  const hash = createHash('sha256').update(`${about}\n${ROOT}\n`);
  const files = [path.join(ROOT, 'pyproject.toml'), ...filesBelow(path.join(ROOT, 'smidr_ci'))];
  for (const file of files) {
    const content = fs.readFileSync(file);
    hash.update(`${path.relative(ROOT, file)}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex').slice(0, 24);
}

function filesBelow(folder) {
  const found = [];
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const place = path.join(folder, entry.name);
    if (entry.isDirectory() && entry.name !== '__pycache__') found.push(...filesBelow(place));
    if (entry.isFile()) found.push(place);
  }
  return found.sort();
}

function knownAt(note, base) {
  try {
    const folder = fs.readFileSync(note, 'utf8');
    const python = path.join(folder, 'bin', 'python');
    return path.dirname(folder) === base && fs.existsSync(python) ? python : null;
  } catch {
    return null;
  }
}

module.exports = { installedPython };
