'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { clip, clipBytes, pieces, printable } = require('../../../action/lib/text');
const { StepLog, escapeData, escapeProperty } = require('../../../action/lib/log');
const { LineSplitter } = require('../../../action/lib/lines');

function written() {
  const parts = [];
  const log = new StepLog((text) => parts.push(text));
  return { log, lines: () => parts.join('').split('\n').slice(0, -1) };
}

test('escape sequences, controls and overrides of direction are left out', () => {
  assert.equal(printable('a\x1b[31mred\x1b[0m\x07 \x1b]0;title\x07b\x9b\u202e\u2028c\r'), 'ared bc');
  assert.equal(printable('a\nb'), 'a b');
  assert.equal(printable('a\nb', { keepNewlines: true }), 'a\nb');
  assert.equal(printable('\ud800a\ud83d\ude00\udc00'), 'a\ud83d\ude00');
});

test('a cut never parts a character', () => {
  const text = '\ud83d\ude00'.repeat(10);
  for (let limit = 5; limit < 20; limit += 1) assert.equal(printable(clip(text, limit)), clip(text, limit));
  for (let limit = 1; limit < 40; limit += 1) {
    assert.ok(Buffer.byteLength(clipBytes(text, limit)) <= limit);
    assert.ok(!clipBytes(text, limit).includes('\ufffd'));
  }
  assert.equal(pieces(text, 5).join(''), text);
  assert.deepEqual(pieces('', 5), ['']);
});

test('data and properties of commands are escaped as the runner reads them', () => {
  assert.equal(escapeData('100%\na:b,c'), '100%25%0Aa:b,c');
  assert.equal(escapeProperty('100%\na:b,c'), '100%25%0Aa%3Ab%2Cc');
  assert.equal(escapeData('a\r\n::error::b'), 'a%0A::error::b');
});

test('all text stands between tokens that are used once', () => {
  const { log, lines } = written();
  log.text('::error::one');
  log.group('Building');
  log.text('##[error]two');
  log.text('::set-output name=x::y\n::add-mask::a');
  log.close();
  const shown = lines();
  const opened = shown.filter((line) => line.startsWith('::stop-commands::')).map((line) => line.slice(17));
  assert.equal(new Set(opened).size, 2);
  for (const token of opened) {
    assert.match(token, /^[0-9a-f]{48}$/);
    assert.equal(shown.filter((line) => line === `::${token}::`).length, 1);
  }
  assert.ok(shown.includes('## [error]two'));
  assert.ok(!shown.some((line) => line.includes('##[')));
  assert.equal(shown.at(-1), '::endgroup::');
});

test('groups never nest, and empty ends are not printed', () => {
  const { log, lines } = written();
  log.endGroup();
  log.group('a');
  log.group('b');
  log.close();
  log.close();
  assert.deepEqual(lines(), ['::group::a', '::endgroup::', '::group::b', '::endgroup::']);
});

test('an annotation is one line, whatever its parts hold', () => {
  const { log, lines } = written();
  log.annotate('error', { title: 'a,b::c\n', file: '', line: 3 }, 'x\n::endgroup::\n%0A');
  assert.deepEqual(lines(), ['::error title=a%2Cb%3A%3Ac%0A,line=3::x%0A::endgroup::%0A%250A']);
});

test('long lines are split, and none is lost', () => {
  const { log, lines } = written();
  const long = Array.from({ length: 900 }, (_, index) => `${index}:`).join('');
  log.text(`${long}\nshort`);
  const shown = lines().slice(1);
  assert.ok(shown.every((line) => line.length <= 1000));
  assert.equal(shown.slice(0, -1).join(''), long);
});

test('bytes in any pieces become the same lines', () => {
  const raw = Buffer.from('one\n\ntw\u00f6\nthree\xff');
  for (let size = 1; size <= raw.length; size += 1) {
    const taken = [];
    const lines = new LineSplitter((text) => taken.push(...text.split('\n')));
    for (let at = 0; at < raw.length; at += size) lines.push(raw.subarray(at, at + size));
    lines.flush();
    assert.deepEqual(taken, ['one', '', 'tw\u00f6', 'three\xff']);
  }
});

test('a line without an end does not fill the memory', () => {
  let taken = 0;
  const lines = new LineSplitter((text) => { taken += text.length; });
  for (let at = 0; at < 64; at += 1) lines.push(Buffer.alloc(10_000, 'x'));
  assert.ok(taken > 500_000);
});

test('files that are elsewhere are linked, and a link can not be forged', () => {
  const { linksTo } = require('../../../action/lib/upload');
  assert.equal(linksTo([['a.wic', 'on the build host: smidr artifacts list x']]), '');
  const text = linksTo([
    ['images/a_b](http://evil) \n# x.wic', 'https://files.example/a?X-Amz-Date=1&b=2'],
    ['c.wic', 'https://files.example/) [x](javascript:1'],
  ]);
  assert.match(text, /\*\*Too big for GitHub, and stored elsewhere\*\*/);
  assert.ok(text.includes('- [images/a\\_b\\]\\(http://evil\\)  \\# x.wic](https://files.example/a?X-Amz-Date=1&b=2)'));
  assert.ok(!text.includes('javascript'));
});
