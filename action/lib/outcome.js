'use strict';
// What is left after a build: outputs, annotations, the job's summary, and the step's exit code.

const fs = require('node:fs');
const path = require('node:path');
const { annotate } = require('./annotations');
const { printable } = require('./text');

const MOST_IMAGES_BYTES = 256 * 1024; // all outputs of a job together may have 1 MB
const CANCELLED = 130;

/** Tell the result; the exit code. `artifacts` is what the agent lists, `summary` its Markdown. */
function tell({ record, artifacts, summary, inputs, env, log, files }) {
  const images = imagesOf(artifacts, inputs);
  showArtifacts(log, artifacts, images);
  const left = annotate(log, record, inputs, env);
  if (left) log.text(`${left} more findings are in the job's summary.`);
  const summaryPath = writeSummary(record, summary, env);
  if (summary) files.addSummary(summary, `smidr status ${record.build_id} --format markdown`);
  files.setOutput('result', record.state);
  files.setOutput('artifacts-path', artifacts.directory || '');
  files.setOutput('images', JSON.stringify(images));
  files.setOutput('sstate-reuse', reuseOf(record.sstate));
  files.setOutput('summary-path', summaryPath);
  return exitCodeOf(record, inputs, log);
}

/** Paths of the files that the input `artifacts` chooses. */
function imagesOf(artifacts, inputs) {
  const found = [];
  let size = 0;
  for (const name of chosenOf(artifacts, inputs)) {
    const place = path.join(artifacts.directory || '', name);
    size += Buffer.byteLength(place) + 4;
    if (size <= MOST_IMAGES_BYTES) found.push(place);
  }
  return found;
}

/** The artifacts that the input chooses, as the agent lists them. */
function chosenOf(artifacts, inputs) {
  const names = artifacts.artifacts.map((artifact) => artifact.path);
  if (!inputs.artifacts.length) return names;
  return names.filter((name) => inputs.artifacts.some(({ regexp }) => regexp.test(name)));
}

function showArtifacts(log, artifacts, images) {
  if (!artifacts.artifacts.length) return;
  log.group('Artifacts');
  log.text(`in ${artifacts.directory}`);
  for (const { path: name, size_bytes: size } of artifacts.artifacts) {
    const isImage = images.includes(path.join(artifacts.directory || '', name));
    log.text(`${String(size).padStart(14)} ${isImage ? '' : '(not chosen) '}${name}`);
  }
  log.endGroup();
}

/** Where the Markdown was written, for later steps; empty when nowhere. */
function writeSummary(record, summary, env) {
  const folder = env.RUNNER_TEMP;
  if (!folder || !summary) return '';
  const place = path.join(fs.realpathSync(folder), `smidr-${record.build_id}.md`);
  fs.rmSync(place, { force: true });
  fs.writeFileSync(place, summary, { flag: 'wx', mode: 0o600 });
  return place;
}

/** Percent of the wanted objects of shared state that were there; empty when nothing was wanted. */
function reuseOf(sstate) {
  if (!sstate || !sstate.wanted) return '';
  return String(Math.floor((100 * (sstate.local + sstate.mirrors)) / sstate.wanted));
}

function exitCodeOf(record, inputs, log) {
  const id = record.build_id;
  if (record.state === 'cancelled') {
    log.text(`Build ${id} was cancelled. ${printable(record.cancel_reason || '')}`);
    return CANCELLED;
  }
  const warnings = warningsOf(record);
  const seen = warnings ? ` with ${warnings} warnings` : '';
  if (record.state === 'completed' && warnings && inputs.failOn === 'warning') {
    log.annotate('error', { title: 'smidr: warnings' }, `The build has ${warnings} warnings, and fail-on is warning.`);
    return 1;
  }
  log.text(`Build ${id} ${record.state}${seen}.`);
  return record.state === 'completed' ? 0 : 1;
}

function warningsOf(record) {
  const told = (record.tasks || {}).warnings || 0;
  const found = (record.findings || []).filter((finding) => finding.severity === 'warning').length;
  return Math.max(told, found);
}

module.exports = { CANCELLED, chosenOf, reuseOf, tell };
