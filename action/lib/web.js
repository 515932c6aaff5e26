'use strict';
// GET through the proxies that the environment names, as the runner's own programs do (@actions/http-client):
// Node's fetch knows nothing of them before Node 24.

const http = require('node:http');
const https = require('node:https');
const tls = require('node:tls');

const MAX_BYTES = 1 << 20;
const MAX_HEAD = 16 << 10;

/** The JSON of a 2xx answer. Redirects are refused: what is asked for is nobody else's. */
async function getJson(url, { headers = {}, timeoutMs, env = process.env }) {
  const place = new URL(url);
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    const answer = await get(place, headers, proxyFor(place, env), signal);
    const raw = await whole(answer);
    if (answer.statusCode < 200 || answer.statusCode > 299) throw new Error(`status ${answer.statusCode}`);
    return JSON.parse(raw.toString());
  } catch (error) {
    if (signal.aborted) throw new Error('no answer in time');
    throw error;
  }
}

/** The proxy's URL for a place; null where there is none, or NO_PROXY says so. */
function proxyFor(place, env) {
  const name = place.protocol === 'https:' ? 'https_proxy' : 'http_proxy';
  const given = env[name] || env[name.toUpperCase()];
  if (!given || isDirect(place, env.no_proxy || env.NO_PROXY || '')) return null;
  const proxy = new URL(given.includes('://') ? given : `http://${given}`);
  if (!['http:', 'https:'].includes(proxy.protocol)) throw new Error(`${name} is no HTTP proxy`);
  return proxy;
}

/** NO_PROXY: hosts and domains, also with a port; `*` is all of them. */
function isDirect(place, list) {
  const host = place.hostname.toLowerCase().replace(/^\[|\]$/g, '');
  const port = place.port || (place.protocol === 'https:' ? '443' : '80');
  if (host === 'localhost' || host === '::1' || /^127(\.\d+){3}$/.test(host)) return true;
  return list.toLowerCase().split(',').map((item) => item.trim()).filter(Boolean).some((item) => {
    if (item === '*') return true;
    const parts = /^\[(.*)\](?::(\d+))?$/.exec(item) || /^([^:]*)(?::(\d+))?$/.exec(item) || [item, item];
    const [, name, wantedPort] = parts; // an IPv6 address without brackets has no port
    const domain = name.replace(/^\*?\./, '');
    return (!wantedPort || wantedPort === port) && (host === domain || host.endsWith(`.${domain}`));
  });
}

async function get(place, headers, proxy, signal) {
  if (!proxy) return asked(place.protocol === 'https:' ? https : http, { ...target(place), headers, signal });
  if (place.protocol === 'http:') {
    const absolute = { ...target(proxy), path: place.href, headers: { ...headers, host: place.host, ...login(proxy) } };
    return asked(proxy.protocol === 'https:' ? https : http, { ...absolute, signal });
  }
  const socket = await tunnel(place, proxy, signal);
  const host = place.hostname.replace(/^\[|\]$/g, '');
  const createConnection = () => tls.connect({ socket, servername: host, ALPNProtocols: ['http/1.1'] });
  // Node uses it only where no agent is named, not even `false`.
  return asked(https, { ...target(place), agent: undefined, headers, signal, createConnection });
}

function target(url) {
  const hostname = url.hostname.replace(/^\[|\]$/g, '');
  return { hostname, port: url.port || undefined, path: url.pathname + url.search, agent: false };
}

function asked(module, options) {
  return new Promise((resolve, reject) => {
    const request = module.request({ method: 'GET', ...options });
    request.on('error', reject);
    request.on('response', resolve);
    request.end();
  });
}

/** A connection to the place, by the proxy's CONNECT. */
function tunnel(place, proxy, signal) {
  const authority = `${place.hostname}:${place.port || 443}`;
  const options = { ...target(proxy), method: 'CONNECT', path: authority, headers: { host: authority, ...login(proxy) } };
  const module = proxy.protocol === 'https:' ? https : http;
  return new Promise((resolve, reject) => {
    const request = module.request({ ...options, signal, maxHeaderSize: MAX_HEAD });
    request.on('error', reject);
    request.on('response', (answer) => {
      answer.destroy();
      reject(new Error(`the proxy answers with status ${answer.statusCode}`));
    });
    request.on('connect', (answer, socket) => {
      if (answer.statusCode === 200) {
        resolve(socket);
        return;
      }
      socket.destroy();
      reject(new Error(`the proxy answers with status ${answer.statusCode}`));
    });
    request.end();
  });
}

function login(proxy) {
  if (!proxy.username) return {};
  const pair = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
  return { 'proxy-authorization': `Basic ${Buffer.from(pair).toString('base64')}` };
}

async function whole(answer) {
  const parts = [];
  let size = 0;
  for await (const part of answer) {
    size += part.length;
    if (size > MAX_BYTES) throw new Error('the answer is too long');
    parts.push(part);
  }
  return Buffer.concat(parts);
}

module.exports = { getJson, proxyFor };
