// Prometheus' own checker on the metrics of a real server. Debian's package prometheus has promtool.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { startServer } from './server.mjs';

const promtool = process.env.PROMTOOL ?? 'promtool';
const skip = spawnSync(promtool, ['--version']).status === 0 ? false : 'there is no promtool';
const check = (page) => spawnSync(promtool, ['check', 'metrics'], { input: page, encoding: 'utf8' });

test('promtool accepts the metrics', { skip }, async () => {
  const server = await startServer('--metrics', '--alias', 'a "model" with \\ in it');
  try {
    const base = `http://127.0.0.1:${server.port}`;
    await fetch(base + '/nothing');
    const reply = await fetch(base + '/v1/chat/completions', {
      method: 'POST', headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages: [{ role: 'user', content: 'Say OK' }], max_tokens: 5 }),
    });
    assert.equal(reply.status, 200);
    const page = await (await fetch(base + '/metrics')).text();
    // promtool would keep colons for the names of recording rules; the prefix is llama-server's way. It has nothing else to say.
    const as_is = check(page);
    assert.ok([0, 3].includes(as_is.status), as_is.stderr);
    for (const line of (as_is.stdout + as_is.stderr).split('\n').filter(Boolean))
      assert.match(line, /^quern:\w+ metric names should not contain ':'$/);
    const renamed = check(page.replaceAll('quern:', 'quern_'));
    assert.equal(renamed.status, 0, renamed.stdout + renamed.stderr);
    // The checker does check.
    assert.notEqual(check(page + 'quern:n_decode_total 1\n').status, 0);
  } finally {
    assert.equal(await server.stop(), 0);
  }
});
