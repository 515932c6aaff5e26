'use strict';
// Findings as annotations: the cause first, no more than a step may have.

const fs = require('node:fs');
const path = require('node:path');
const { clip, printable } = require('./text');

const PER_LEVEL = 10; // the runner drops what is more (docs.github.com, "Workflow commands")
const MESSAGE = 3500;
const TITLE = 250;

/** Annotate a build's record; how many findings were left out. */
function annotate(log, record, inputs, env) {
  const findings = Array.isArray(record.findings) ? record.findings : [];
  let left = 0;
  const failure = failureOf(record, findings);
  for (const level of ['error', 'warning']) {
    const chosen = findings.filter((finding) => finding.severity === level);
    const first = level === 'error' && failure ? [failure] : [];
    const room = PER_LEVEL - first.length;
    for (const { properties, message } of [
      ...first,
      ...chosen.slice(0, room).map((finding) => shown(finding, record, inputs, env)),
    ]) {
      log.annotate(level, properties, message);
    }
    left += Math.max(0, chosen.length - room);
  }
  return left;
}

/** A build that failed for a reason that no finding tells. */
function failureOf(record, findings) {
  if (record.state !== 'failed' || findings.some((finding) => finding.severity === 'error')) return null;
  const title = `smidr: ${record.failure_kind || 'failed'}`;
  const message = record.failure_message || 'the build failed';
  return { properties: { title: clip(printable(title), TITLE) }, message: clip(message, MESSAGE) };
}

function shown(finding, record, inputs, env) {
  const subject = [finding.recipe, finding.version].filter(Boolean).join(' ');
  const about = [subject, finding.task].filter(Boolean).join(', ');
  const properties = { title: clip(printable(about ? `${finding.category}: ${about}` : finding.category), TITLE) };
  const lines = [finding.message, finding.hint];
  if (finding.reproduce) lines.push(`Repeat: ${finding.reproduce}`);
  if (finding.consequence_count) lines.push(`${finding.consequence_count} more errors follow from this.`);
  const file = fileInWorkspace(finding, record, inputs, env);
  if (file) {
    properties.file = file;
    if (Number.isInteger(finding.line) && finding.line > 0) {
      properties.line = finding.line;
      if (Number.isInteger(finding.column) && finding.column > 0) properties.col = finding.column;
    }
  } else {
    const place = finding.layer && finding.repo_path ? `${finding.repo_path} in layer ${finding.layer}` : finding.file;
    if (place) lines.push(`File: ${place}${finding.line ? `, line ${finding.line}` : ''}`);
  }
  return { properties, message: clip(lines.filter(Boolean).join('\n'), MESSAGE) };
}

/** The finding's file as the repository has it; empty when it lies elsewhere. */
function fileInWorkspace(finding, record, inputs, env) {
  const { workspace } = inputs;
  const roots = [];
  const commit = (record.layer_commits || {})[finding.layer] || '';
  if (finding.repo_path && commit.startsWith('local-')) {
    // A layer that the config names by `path`; it says nothing more of where that is.
    for (const name of localLayers(inputs.configText, finding.layer)) {
      roots.push(path.resolve(path.dirname(inputs.config), name));
    }
    roots.push(path.join(path.dirname(inputs.config), finding.layer), path.dirname(inputs.config), workspace);
  } else if (finding.repo_path && commit && commit === env.GITHUB_SHA) {
    roots.push(workspace); // the very commit that is checked out
  } else if (finding.file && !finding.repo_path && path.isAbsolute(finding.file)) {
    return within(workspace, finding.file);
  }
  for (const root of roots) {
    const found = within(workspace, path.join(root, finding.repo_path));
    if (found) return found;
  }
  return '';
}

/** Paths that could be the layer's: `path` of the list's entry with this name. */
function localLayers(text, layer) {
  const found = [];
  for (const entry of text.split(/^\s*-\s/m)) {
    const name = /(?:^|[\s{,])name:\s*["']?([^\s"',}]+)/.exec(entry);
    const place = /(?:^|[\s{,])path:\s*["']?([^\s"',}]+)/.exec(entry);
    if (name && place && name[1] === layer) found.push(place[1]);
  }
  return found;
}

function within(workspace, file) {
  try {
    const real = fs.realpathSync(file);
    const relative = path.relative(workspace, real);
    const isOutside = !relative || relative.startsWith('..') || path.isAbsolute(relative);
    return isOutside || !fs.statSync(real).isFile() ? '' : relative;
  } catch {
    return '';
  }
}

module.exports = { annotate };
