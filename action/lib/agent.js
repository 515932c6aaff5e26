'use strict';
// The agent's HTTP API over its unix socket; /api/v1/openapi.json of a running one describes it.

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { AgentError, StepError, UnreachableError } = require('./errors');

const ROOT = '/api/v1';
const ANSWER_MS = 60_000;
const MAX_JSON_BYTES = 64 << 20;
const LONGEST_SOCKET = 100; // sockaddr_un has 108 bytes

class Agent {
  constructor(socket) {
    this.socket = socket;
  }

  /** The JSON that the agent answers; raises `AgentError` or `UnreachableError`. */
  async ask(method, place, { body, timeoutMs = ANSWER_MS } = {}) {
    const answer = await this._send(method, ROOT + place, { body, timeoutMs });
    const raw = await this._whole(answer);
    return raw.length ? this._parsed(raw) : null;
  }

  /** The same for text. */
  async text(place) {
    return (await this._whole(await this._send('GET', ROOT + place, {}))).toString();
  }

  /** An answer that is read as it comes; it must be read to its end or destroyed. */
  stream(place, query) {
    const listed = new URLSearchParams(query).toString();
    return this._send('GET', `${ROOT}${place}?${listed}`, {});
  }

  /** The same for a request with a body. */
  post(place, body) {
    return this._send('POST', ROOT + place, { body });
  }

  /** What keeps builds from starting; empty when nothing does. */
  async problems() {
    const answer = await this._send('GET', '/readyz', { isFine: (status) => status === 503 });
    return this._parsed(await this._whole(answer)).problems || [];
  }

  _send(method, place, { body, timeoutMs = ANSWER_MS, isFine = () => false }) {
    const raw = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const headers = { host: 'localhost', connection: 'close' };
    if (raw) Object.assign(headers, { 'content-type': 'application/json', 'content-length': raw.length });
    const { socketPath, done } = reachable(this.socket);
    return new Promise((resolve, reject) => {
      let isConnected = false;
      const request = http.request({ socketPath, method, path: place, headers, agent: false });
      const fail = (error) => {
        done();
        reject(new UnreachableError(this.socket, error, isConnected));
      };
      request.on('socket', (socket) => {
        socket.once('connect', () => {
          isConnected = true;
          done();
        });
      });
      request.setTimeout(timeoutMs, () => request.destroy(new Error('no answer in time')));
      request.on('error', fail);
      request.on('response', (answer) => {
        request.setTimeout(0);
        answer.on('error', () => {}); // who reads it sees the same
        if (answer.statusCode < 400 || isFine(answer.statusCode)) {
          resolve(answer);
          return;
        }
        this._whole(answer).then((text) => {
          reject(new AgentError(answer.statusCode, parsedOrNull(text), answer.headers));
        }, reject);
      });
      request.end(raw);
    });
  }

  async _whole(answer) {
    const parts = [];
    let size = 0;
    try {
      for await (const part of answer) {
        size += part.length;
        if (size > MAX_JSON_BYTES) throw new Error('the answer is too long');
        parts.push(part);
      }
      if (!answer.complete) throw new Error('the answer broke off');
    } catch (error) {
      throw new UnreachableError(this.socket, error, true);
    }
    return Buffer.concat(parts);
  }

  _parsed(raw) {
    const found = parsedOrNull(raw);
    if (found === null) throw new StepError(`what answers at ${this.socket} is no smidr agent`);
    return found;
  }
}

function parsedOrNull(raw) {
  try {
    return JSON.parse(raw.toString());
  } catch {
    return null;
  }
}

/** A path that fits into a socket's address, and what gives it free again. */
function reachable(socket) {
  if (Buffer.byteLength(socket) <= LONGEST_SOCKET) return { socketPath: socket, done: () => {} };
  let folder;
  try {
    folder = fs.openSync(path.dirname(socket), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  } catch {
    return { socketPath: socket, done: () => {} }; // connecting says what is wrong
  }
  let isOpen = true;
  return {
    socketPath: `/proc/self/fd/${folder}/${path.basename(socket)}`,
    done: () => {
      if (isOpen) fs.closeSync(folder);
      isOpen = false;
    },
  };
}

module.exports = { Agent };
