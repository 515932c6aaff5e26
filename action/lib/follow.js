'use strict';
// A build as it runs: its views, and its log by byte offset, over any number of connections.

const { AgentError, UnreachableError } = require('./errors');
const { LineSplitter } = require('./lines');
const { Patience } = require('./patience');

const SILENCE_MS = 45_000; // an agent that is watched writes at least every fifteen seconds
const MAX_VIEW_BYTES = 64 << 20;

/**
 * Show a build until it is over; its final record. `display` gets `view(view)`, `log(text)` and
 * `note(text)`. Raises `UnreachableError` when the agent stays away for `reconnectMs`.
 */
async function follow(agent, buildId, display, { reconnectMs, stop }) {
  const context = { agent, place: `/builds/${encodeURIComponent(buildId)}`, display };
  context.patience = new Patience(reconnectMs, stop, () => {
    display.note('The agent does not answer. The build goes on; waiting for the agent to come back.');
  });
  const logging = followLog(context);
  logging.catch(() => {}); // awaited below, also when the views fail first
  const record = await followViews(context);
  await logging;
  return record;
}

async function followLog(context) {
  const { display } = context;
  const lines = new LineSplitter((text) => display.log(text));
  let offset = 0;
  let isOver = false;
  while (!isOver) {
    isOver = await trying(context, async () => {
      const answer = await context.agent.stream(`${context.place}/log`, { offset, follow: true });
      const start = Number(answer.headers['x-smidr-offset']);
      if (start !== offset) {
        lines.drop();
        display.note('BitBake begins again, and with it the log.');
        offset = start;
      }
      for await (const chunk of checked(context.agent, answer)) {
        context.patience.succeeded();
        offset += chunk.length;
        lines.push(chunk);
      }
    });
  }
  lines.flush();
}

async function followViews(context) {
  let notesAfter = 0;
  let instance = '';
  let last = null;
  while (!isFinal(last)) {
    await trying(context, async () => {
      const query = { notes_after: notesAfter, instance };
      const answer = await context.agent.stream(`${context.place}/watch`, query);
      const found = answer.headers['x-smidr-instance'] || '';
      if (found !== instance) notesAfter = 0;
      instance = found;
      answer.setTimeout(SILENCE_MS, () => answer.destroy(new Error('nothing was heard of it')));
      for await (const line of jsonLines(checked(context.agent, answer))) {
        context.patience.succeeded();
        if (!line) continue;
        last = JSON.parse(line);
        for (const note of last.notes) notesAfter = Math.max(notesAfter, note.number);
        context.display.view(last);
      }
      if (!isFinal(last)) throw new UnreachableError(context.agent.socket, new Error('it said too little'));
    });
  }
  return last.record;
}

function isFinal(view) {
  return view !== null && ['completed', 'failed', 'cancelled'].includes(view.record.state);
}

/** Whether it worked; waits when the agent is away. */
async function trying(context, attempt) {
  try {
    await attempt();
    return true;
  } catch (error) {
    const isPassing = error instanceof UnreachableError || (error instanceof AgentError && error.isPassing);
    if (!isPassing) throw error;
    await context.patience.waitAfter(error);
    return false;
  }
}

/** The body's chunks; raises `UnreachableError` when it breaks off. */
async function* checked(agent, answer) {
  try {
    for await (const chunk of answer) yield chunk;
  } catch (error) {
    throw new UnreachableError(agent.socket, error, true);
  }
  if (!answer.complete) throw new UnreachableError(agent.socket, new Error('the answer broke off'), true);
}

async function* jsonLines(chunks) {
  const parts = [];
  let size = 0;
  for await (const chunk of chunks) {
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      yield Buffer.concat([...parts, rest.subarray(0, end)]).toString();
      parts.length = 0;
      size = 0;
      rest = rest.subarray(end + 1);
    }
    size += rest.length;
    if (size > MAX_VIEW_BYTES) throw new Error("the agent's answer is too long");
    parts.push(rest);
  }
}

module.exports = { follow, jsonLines };
