'use strict';
// Artifacts go to the run from the build host: the agent speaks GitHub's results service.

const { AgentError } = require('./errors');
const { jsonLines } = require('./follow');
const { clip, printable } = require('./text');

const MOST_WARNINGS = 10;
const SILENCE_MS = 60_000;
const MOST_LABEL = 200;
const WEB = /^https?:\/\/[A-Za-z0-9._~:/?#@!$&*+,;=%[\]-]+$/;

/** Upload the artifacts that the inputs choose; trouble is told, and fails nothing. */
async function upload(agent, record, chosen, { env, log, files }) {
  if (!chosen.length) {
    warn(log, 'the build has no artifact that the input artifacts chooses');
    return;
  }
  log.group('Upload');
  try {
    const report = await uploaded(agent, record, chosen, { env, log });
    for (const [place, name] of report.uploaded) log.text(`${place} is artifact ${name}`);
    for (const [place, where] of report.placed) log.text(`${place} is not in GitHub, but ${where}`);
    files.addSummary(linksTo(report.placed), 'the log of the step has the rest');
    for (const warning of report.warnings.slice(0, MOST_WARNINGS)) warn(log, warning);
  } catch (error) {
    warn(log, error.status === 404 || error.status === 405 ? withoutForge(env) : error.message);
  } finally {
    log.endGroup();
  }
}

/** Markdown with links to the files that are not in GitHub; empty without any. */
function linksTo(placed) {
  const links = placed.filter(([, where]) => WEB.test(where));
  if (!links.length) return '';
  const lines = links.map(([place, where]) => `- [${escaped(place)}](${where})`);
  return ['\n**Too big for GitHub, and stored elsewhere**\n', ...lines].join('\n');
}

function escaped(text) {
  return clip(printable(text), MOST_LABEL).replace(/[\\`*_{}[\]()#+!|<>~&@-]/g, '\\$&');
}

async function uploaded(agent, record, chosen, { env, log }) {
  const body = {
    server_url: env.GITHUB_SERVER_URL || 'https://github.com',
    repository: env.GITHUB_REPOSITORY || '',
    build_id: record.build_id,
    paths: chosen,
    runtime_token: env.ACTIONS_RUNTIME_TOKEN || '',
    results_url: env.ACTIONS_RESULTS_URL || '',
  };
  const answer = await agent.post('/github/uploads', body);
  answer.setTimeout(SILENCE_MS, () => answer.destroy(new Error('nothing was heard of it')));
  for await (const line of jsonLines(answer)) {
    if (!line) continue;
    const told = JSON.parse(line);
    if (told.text) log.text(told.text);
    if (told.error) throw new AgentError(0, told, {});
    if (told.report) return told.report;
  }
  throw new Error('the agent said too little of the upload');
}

function withoutForge(env) {
  return (
    `the agent has no registration with GitHub that serves ${env.GITHUB_REPOSITORY}, so nothing was uploaded;` +
    ' actions/upload-artifact takes the output artifacts-path'
  );
}

function warn(log, message) {
  log.annotate('warning', { title: 'smidr: upload' }, clip(message, 3000));
}

module.exports = { linksTo, upload };
