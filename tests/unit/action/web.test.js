'use strict';

const assert = require('node:assert/strict');
const http = require('node:http');
const test = require('node:test');
const { getJson, proxyFor } = require('../../../action/lib/web');

const PROXY = { HTTPS_PROXY: 'http://proxy.example:3128', http_proxy: 'plain.example:8080' };

function chosen(url, env) {
  const found = proxyFor(new URL(url), env);
  return found && found.host;
}

test('the proxy is that of the scheme, in small or capital letters', () => {
  assert.equal(chosen('https://token.example/x', PROXY), 'proxy.example:3128');
  assert.equal(chosen('http://token.example/x', PROXY), 'plain.example:8080');
  assert.equal(chosen('https://token.example/x', {}), null);
  assert.throws(() => chosen('https://token.example/', { https_proxy: 'socks5://p:1' }), /no HTTP proxy/);
});

for (const [list, url, isDirect] of [
  ['token.example', 'https://token.example/', true],
  ['example', 'https://token.example/', true],
  ['.example', 'https://token.example/', true],
  ['*.example', 'https://token.example/', true],
  ['oken.example', 'https://token.example/', false],
  ['other.example, TOKEN.example ', 'https://token.example/', true],
  ['token.example:443', 'https://token.example/', true],
  ['token.example:8443', 'https://token.example/', false],
  ['token.example:8443', 'https://token.example:8443/', true],
  ['*', 'https://token.example/', true],
  ['fe80::1', 'https://[fe80::1]/', true],
  ['[fe80::1]:443', 'https://[fe80::1]/', true],
  ['', 'https://localhost/', true],
  ['', 'https://127.0.0.1:8080/', true],
  ['', 'https://127.example/', false],
]) {
  test(`with NO_PROXY ${JSON.stringify(list)} ${url} is asked ${isDirect ? 'directly' : 'by the proxy'}`, () => {
    assert.equal(chosen(url, { ...PROXY, NO_PROXY: list }), isDirect ? null : 'proxy.example:3128');
  });
}

/** A server on loopback for one test; `seen` has method, target and headers of each request. */
async function serve(t, answer) {
  const seen = [];
  const server = http.createServer((request, response) => {
    seen.push([request.method, request.url, request.headers]);
    answer(response);
  });
  server.on('connect', (request, socket) => {
    seen.push([request.method, request.url, request.headers]);
    socket.end('HTTP/1.1 407 Login, please\r\n\r\n');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  return { url: `http://127.0.0.1:${server.address().port}`, seen };
}

const TOKEN = (response) => response.end('{"value": "token"}');

test('without encryption the proxy gets the whole address, and its own login only', async (t) => {
  const proxy = await serve(t, TOKEN);
  const env = { http_proxy: proxy.url.replace('//', '//user:p%40ss@') };
  const headers = { authorization: 'Bearer secret' };
  const found = await getJson('http://token.invalid/a?b=c', { headers, timeoutMs: 10_000, env });
  assert.deepEqual(found, { value: 'token' });
  const [method, target, sent] = proxy.seen[0];
  assert.deepEqual([method, target, sent.host], ['GET', 'http://token.invalid/a?b=c', 'token.invalid']);
  assert.equal(sent['proxy-authorization'], `Basic ${Buffer.from('user:p@ss').toString('base64')}`);
});

test('a proxy that refuses is named, and hears nothing of the bearer', async (t) => {
  const proxy = await serve(t, TOKEN);
  const asking = getJson('https://token.invalid/', {
    headers: { authorization: 'Bearer secret' }, timeoutMs: 10_000, env: { https_proxy: proxy.url },
  });
  await assert.rejects(asking, /the proxy answers with status 407/);
  assert.deepEqual(proxy.seen.map(([method, target]) => [method, target]), [['CONNECT', 'token.invalid:443']]);
  assert.ok(!JSON.stringify(proxy.seen).includes('secret'));
});

for (const [what, answer, message] of [
  ['a redirect', (response) => response.writeHead(302, { location: 'http://elsewhere.invalid/' }).end(), /status 302/],
  ['an error', (response) => response.writeHead(500).end('{}'), /status 500/],
  ['what is no JSON', (response) => response.end('<html>'), /JSON/],
  ['too much', (response) => response.end('x'.repeat(2 << 20)), /too long/],
  ['silence', () => {}, /no answer in time/],
]) {
  test(`${what} is no token`, async (t) => {
    const server = await serve(t, answer);
    await assert.rejects(getJson(server.url, { timeoutMs: what === 'silence' ? 200 : 10_000, env: {} }), message);
  });
}
