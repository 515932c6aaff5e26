'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const test = require('node:test');
const { globRegexp, readInputs } = require('../../../action/lib/inputs');
const { orderFor } = require('../../../action/lib/order');
const { judgeEvent } = require('../../../action/lib/event');
const { StepFiles, SUMMARY_BYTES } = require('../../../action/lib/files');
const { reuseOf } = require('../../../action/lib/outcome');
const { childEnvironment } = require('../../../action/lib/children');

const SHA = 'a'.repeat(40);
const FORK = 'b'.repeat(40);

function workspace(t, files = { 'smidr.yaml': 'name: demo\n' }) {
  const root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'smidr-inputs-')));
  t.after(() => fs.rmSync(root, { recursive: true }));
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    fs.writeFileSync(path.join(root, name), text);
  }
  return root;
}

function environment(root, inputs = {}, more = {}) {
  const given = Object.entries({ config: 'smidr.yaml', ...inputs });
  return {
    GITHUB_WORKSPACE: root,
    ...Object.fromEntries(given.map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value])),
    ...more,
  };
}

test('inputs are read by the names that the runner gives them', (t) => {
  const root = workspace(t, { 'sub/smidr.yaml': 'name: sub\n' });
  const found = readInputs(environment(root, {
    'working-directory': 'sub', target: ' a\n b ', 'fail-on': 'warning', clean: 'true', machine: 'qemux86-64',
  }, { GITHUB_REPOSITORY: 'Acme/My_BSP!' }));
  assert.equal(found.config, path.join(root, 'sub/smidr.yaml'));
  assert.deepEqual(found.targets, ['a', 'b']);
  assert.equal(found.customer, 'acme-my_bsp');
  assert.equal(found.failOn, 'warning');
  assert.equal(found.clean, true);
});

for (const [name, value] of [
  ['config', ''], ['config', 'none.yaml'], ['config', '../x'], ['config', '/etc/passwd'], ['config', 'link'],
  ['config', '.'], ['config', 'big'], ['config', 'latin'], ['config', 'a\0b'],
  ['clean', 'yes'], ['upload', '1'], ['fail-on', 'never'], ['customer', 'A B'], ['customer', '-x'],
  ['machine', 'a b'], ['machine', '--x'], ['working-directory', '..'], ['working-directory', 'smidr.yaml'],
]) {
  test(`input ${name} can't be ${JSON.stringify(value)}, and the message names it`, (t) => {
    const root = workspace(t, { 'smidr.yaml': 'name: a\n', big: 'x'.repeat((1 << 20) + 1) });
    fs.writeFileSync(path.join(root, 'latin'), Buffer.from([0x6e, 0xff]));
    fs.symlinkSync('/etc/passwd', path.join(root, 'link'));
    assert.throws(() => readInputs(environment(root, { [name]: value })), (error) => {
      return error.constructor.name === 'StepError' && error.message.startsWith(`input ${name} `);
    });
  });
}

test('patterns choose paths as shells do', () => {
  assert.ok(globRegexp('images/*.wic').test('images/a.wic'));
  assert.ok(!globRegexp('images/*.wic').test('images/x/a.wic'));
  assert.ok(globRegexp('images/**/*.wic').test('images/a.wic'));
  assert.ok(globRegexp('images/**/*.wic').test('images/x/y/a.wic'));
  assert.ok(globRegexp('**').test('a/b'));
  assert.ok(globRegexp('a?c+(d)').test('abc+(d)'));
  assert.ok(!globRegexp('a.c').test('abc'));
});

test('only what the config names of the environment goes to the agent, and no secret of the runner', (t) => {
  const text = 'a: ${SMIDR_X} ${OTHER} ${ACTIONS_RUNTIME_TOKEN} ${GITHUB_TOKEN} ${INPUT_CONFIG} ${SMIDR_TOKEN}\n';
  const root = workspace(t, { 'smidr.yaml': text });
  const more = {
    SMIDR_X: '1', OTHER: '2', UNNAMED: '3', ACTIONS_RUNTIME_TOKEN: 's', GITHUB_TOKEN: 's', SMIDR_TOKEN: 's', HOME: '/h',
  };
  const env = environment(root, {}, more);
  const inputs = readInputs(env);
  assert.deepEqual(orderFor(inputs, env, false).variables, { SMIDR_X: '1', OTHER: '2', HOME: '/h' });
  assert.deepEqual(orderFor(inputs, env, true).variables, { SMIDR_X: '1' });
});

test('a machine that the config would not take is refused', (t) => {
  const root = workspace(t, { 'smidr.yaml': 'machine: x # ${SMIDR_MACHINE}\n', 'good.yaml': 'machine: ${SMIDR_MACHINE:-x}\n' });
  const bad = environment(root, { machine: 'qemuarm64' });
  assert.throws(() => orderFor(readInputs(bad), bad, false), /machine of its own/);
  const good = environment(root, { machine: 'qemuarm64', config: 'good.yaml' });
  assert.equal(orderFor(readInputs(good), good, false).variables.SMIDR_MACHINE, 'qemuarm64');
});

function event(t, name, payload, head) {
  const root = workspace(t, { '.git/HEAD': `${head}\n`, 'event.json': JSON.stringify(payload) });
  return [{ GITHUB_EVENT_NAME: name, GITHUB_EVENT_PATH: path.join(root, 'event.json'), GITHUB_SHA: SHA }, root];
}

const pull = (head) => ({ pull_request: { head: { repo: head && { id: head } }, base: { repo: { id: 1 } } } });

test('a pull request of a fork, or of a repository that is gone, is a stranger\'s', (t) => {
  assert.equal(judgeEvent(...event(t, 'pull_request', pull(2), FORK)).isStranger, true);
  assert.equal(judgeEvent(...event(t, 'pull_request', pull(null), FORK)).isStranger, true);
  assert.equal(judgeEvent(...event(t, 'pull_request', {}, FORK)).isStranger, true);
  assert.equal(judgeEvent(...event(t, 'pull_request', pull(1), FORK)).isStranger, false);
  assert.equal(judgeEvent(...event(t, 'push', {}, SHA)).isStranger, false);
});

for (const [name, payload] of [
  ['pull_request_target', pull(2)],
  ['workflow_run', { repository: { id: 1 }, workflow_run: { head_repository: { id: 2 } } }],
  ['issue_comment', {}],
]) {
  test(`code of a fork is not built with the rights that ${name} has`, (t) => {
    assert.match(judgeEvent(...event(t, name, payload, FORK)).refusal.message, /code of a fork/);
    const odd = judgeEvent(...event(t, name, payload, 'ref: refs/heads/../../event.json'));
    assert.match(odd.refusal.message, /code of a fork/);
    assert.deepEqual(judgeEvent(...event(t, name, payload, SHA)), { isStranger: false, refusal: null });
  });
}

test('outputs with newlines and delimiters of others are read back as they were', (t) => {
  const root = workspace(t, { out: '' });
  const files = new StepFiles({ GITHUB_OUTPUT: path.join(root, 'out') });
  files.setOutput('a', 'x\nEOF\nb=c');
  const [first, ...rest] = fs.readFileSync(path.join(root, 'out'), 'utf8').trimEnd().split('\n');
  assert.equal(rest.at(-1), first.slice('a<<'.length));
  assert.equal(rest.slice(0, -1).join('\n'), 'x\nEOF\nb=c');
});

test('a summary that is too long is cut, and says where the rest is', (t) => {
  const root = workspace(t, { summary: '' });
  const files = new StepFiles({ GITHUB_STEP_SUMMARY: path.join(root, 'summary') });
  files.addSummary('\u00e4'.repeat(1 << 20), 'smidr status x');
  files.addSummary('more', 'smidr status x');
  const summary = fs.readFileSync(path.join(root, 'summary'));
  assert.ok(summary.length <= SUMMARY_BYTES);
  assert.match(summary.toString(), /This is not all: smidr status x\*\n$/);
  assert.ok(!summary.toString().includes('\ufffd'));
});

test('reuse of shared state is a whole number of percent', () => {
  assert.equal(reuseOf({ wanted: 3, local: 1, mirrors: 1 }), '66');
  assert.equal(reuseOf({ wanted: 0, local: 0, mirrors: 0 }), '');
  assert.equal(reuseOf(null), '');
});

test('programs that the step starts get no secret and no path of Python', () => {
  const kept = childEnvironment({ ACTIONS_RUNTIME_TOKEN: 's', GITHUB_TOKEN: 's', PYTHONPATH: '.', GITHUB_ENV: 'f', PATH: '/bin' });
  assert.deepEqual(kept, { PATH: '/bin' });
});
