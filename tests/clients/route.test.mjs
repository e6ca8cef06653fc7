// config/routing/route.mjs between two real servers: "local" and, in the part of the cloud, a second one.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createRouter, decide, estimateTokens } from '../../config/routing/route.mjs';
import { startServer } from './server.mjs';

const sayOk = { messages: [{ role: 'user', content: 'Say OK' }], max_tokens: 10, temperature: 0 };
const story = { messages: [{ role: 'user', content: 'Tell me a story about a cat and a ball.' }], max_tokens: 300, temperature: 1,
  seed: 3 };
const utility = { type: 'log-parsing' };
let cloud;

before(async () => { cloud = await startServer('--alias', 'cloud'); });
after(async () => { assert.equal(await cloud.stop(), 0, cloud.stderr()); });

const at = (server, model, more) => ({ baseURL: server.baseURL, model, ...more });
function route(local, more = {}, localMore = {}) {
  const log = [];
  const router = createRouter({ local: at(local, 'local', localMore), cloud: at(cloud, 'cloud'), freshMs: 0,
    log: (line) => log.push(line), ...more });
  return Object.assign(router, { log });
}
async function withLocal(flags, run) {
  const local = await startServer('--alias', 'local', ...flags);
  try {
    await run(local);
  } finally {
    local.signal('SIGCONT');
    await local.stop();
  }
}
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
/** Until the server computes something. */
async function busy(server) {
  for (const end = Date.now() + 20_000; ; await pause(5)) {
    const metrics = await (await fetch(`http://127.0.0.1:${server.port}/metrics`)).text();
    if (/^quern:requests_processing [1-9]/m.test(metrics)) return;
    assert.ok(Date.now() < end, metrics);
  }
}
async function collect(stream) {
  let text = '';
  const targets = new Set();
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    targets.add(chunk.target);
  }
  return { text, targets: [...targets] };
}

test('the rules', () => {
  for (const [task, target] of [
    [{ type: 'code-review' }, 'local'], [{ type: 'simple-qa', tokens: 2000 }, 'local'],
    [{ type: 'log-parsing', tokens: 1500 }, 'local'],
    [{ tokens: 499 }, 'local'], [{ tokens: 500 }, 'cloud'], [{ tokens: 2001, type: 'code-review' }, 'cloud'],
    [{ priority: 'high', type: 'simple-qa', tokens: 10 }, 'cloud'], [{ type: 'complex-reasoning', tokens: 10 }, 'cloud'],
    [{ type: 'poetry' }, 'cloud'], [{ priority: 'low', tokens: 10 }, 'local'], [{}, 'cloud'],
  ]) {
    assert.equal(decide(task).target, target, JSON.stringify(task));
    assert.equal(decide(task, false).target, 'cloud');
  }
  assert.match(decide({ type: 'code-review' }, false).reason, /down/);
  assert.ok(estimateTokens(sayOk) >= 12 && estimateTokens(sayOk) < 30);
  assert.ok(estimateTokens({ messages: [{ role: 'user', content: [{ type: 'text', text: 'x'.repeat(6001) }] },
    { role: 'assistant' }] }) > 2000);
});

test('tasks go where the rules say', () => withLocal([], async (local) => {
  const router = route(local);
  for (const [task, request, target] of [
    [utility, sayOk, 'local'], [{}, sayOk, 'local'], [{ priority: 'high' }, sayOk, 'cloud'], [{ tokens: 3000 }, sayOk, 'cloud'],
    [{}, { ...sayOk, messages: [{ role: 'user', content: 'Say OK. '.repeat(185) }] }, 'cloud'],
  ]) {
    const answer = await router.chat(task, request);
    assert.deepEqual([answer.target, answer.reply.model], [target, target]);
    assert.deepEqual((await collect(router.stream(task, request))).targets, [target]);
  }
  assert.equal((await router.chat(utility, sayOk)).reply.choices[0].message.content, 'OK');
  assert.deepEqual(router.log, []);
}));

test('local is down, and comes back', async () => {
  const local = await startServer('--alias', 'local');
  const router = route(local);
  assert.equal(await local.stop(), 0);
  const answer = await router.chat(utility, sayOk);
  assert.deepEqual([answer.target, answer.reason], ['cloud', 'local is down']);
  const again = await startServer('--alias', 'local', '--port', String(local.port));
  assert.equal((await router.chat(utility, sayOk)).target, 'local');
  assert.equal(await again.stop(), 0);
});

// One at a time and several waiting: whenever the kill comes, there is somebody in the middle.
test('killed in the middle of requests, the other one answers them',
  () => withLocal(['--metrics', '--parallel', '1'], async (local) => {
  const router = route(local);
  const asked = Array.from({ length: 6 }, (_, seed) => router.chat(utility, { ...story, max_tokens: 900, seed }));
  await busy(local);
  local.signal('SIGKILL');
  const answers = await Promise.all(asked);
  const moved = answers.filter(({ target }) => target === 'cloud');
  assert.ok(moved.length > 0);
  for (const answer of moved) assert.deepEqual([answer.reason, answer.reply.model], ['local failed', 'cloud']);
  for (const answer of answers) assert.ok(answer.reply.choices[0].message.content.length > 10);
  assert.equal(router.log.length, moved.length);
}));

test('killed before its stream has any text, the other one streams',
  () => withLocal(['--metrics', '--parallel', '1'], async (local) => {
  const router = route(local);
  const first = Array.from({ length: 6 }, (_, seed) => collect(router.stream(utility, { ...story, max_tokens: 900, seed }))
    .catch((error) => error));
  await busy(local);
  const waiting = collect(router.stream(utility, sayOk)); // in the queue behind them
  await pause(20);
  local.signal('SIGKILL');
  assert.deepEqual(await waiting, { text: 'OK', targets: ['cloud'] });
  await Promise.all(first);
}));

test('killed after its stream has begun, the caller is told and gets no second beginning', () => withLocal([], async (local) => {
  const texts = [];
  await assert.rejects(async () => {
    for await (const chunk of route(local).stream(utility, { ...story, max_tokens: 900 })) {
      assert.equal(chunk.target, 'local');
      texts.push(chunk.choices[0]?.delta?.content ?? '');
      if (texts.length === 5) local.signal('SIGKILL');
    }
  });
  assert.ok(texts.join('').length > 0);
}));

test('the cloud fails, local answers', () => withLocal([], async (local) => {
  const dead = await startServer();
  await dead.stop();
  const router = route(local, { cloud: at(dead, 'cloud') });
  const answer = await router.chat({ priority: 'high' }, sayOk);
  assert.deepEqual([answer.target, answer.reason], ['local', 'cloud failed']);
  await local.stop();
  await assert.rejects(router.chat({ priority: 'high' }, sayOk));
}));

test('hanging, overloaded, locked or too small: the other one answers', async () => {
  await withLocal([], async (local) => {
    const router = route(local, { freshMs: 60_000 }, { timeoutMs: 300 });
    assert.equal((await router.chat(utility, sayOk)).target, 'local');
    local.signal('SIGSTOP');
    assert.equal((await router.chat(utility, sayOk)).target, 'cloud');
    assert.match(router.log[0], /no answer within 300 ms/);
  });
  await withLocal([], async (local) => { // hanging at the question whether it is up
    local.signal('SIGSTOP');
    assert.equal((await route(local, { healthMs: 300 }).chat(utility, sayOk)).reason, 'local is down');
  });
  await withLocal(['--parallel', '1', '--queue', '1', '--metrics'], async (local) => {
    const router = route(local);
    const answers = await Promise.all(Array.from({ length: 8 }, () => router.chat(utility, { ...story, max_tokens: 60 })));
    const targets = answers.map(({ target }) => target);
    assert.ok(targets.includes('local') && targets.includes('cloud'), String(targets));
    assert.match(router.log[0], /HTTP 503/);
  });
  await withLocal(['--api-key', 'sesame'], async (local) => {
    assert.equal((await route(local).chat(utility, sayOk)).target, 'cloud');
    assert.equal((await route(local, {}, { apiKey: 'sesame' }).chat(utility, sayOk)).target, 'local');
  });
  await withLocal(['--ctx-size', '64'], async (local) => {
    const long = { ...sayOk, messages: [{ role: 'user', content: 'word '.repeat(100) }] };
    assert.equal((await route(local).chat(utility, long)).target, 'cloud');
    assert.deepEqual((await collect(route(local).stream(utility, long))).targets, ['cloud']);
  });
});

test('a wrong request is not sent twice', () => withLocal([], async (local) => {
  const router = route(local);
  const wrong = { ...sayOk, temperature: 'hot' };
  await assert.rejects(router.chat(utility, wrong), { status: 400 });
  await assert.rejects(collect(router.stream(utility, wrong)), { status: 400 });
  assert.equal((cloud.stderr().match(/ 400 /g) ?? []).length, 0);
}));

test('an abort reaches the server and is not taken for a failure', () => withLocal(['--metrics'], async (local) => {
  const router = route(local);
  const controller = new AbortController();
  const asked = router.chat(utility, { ...story, max_tokens: 900 }, { signal: controller.signal });
  await busy(local);
  controller.abort(new Error('changed my mind'));
  await assert.rejects(asked, /changed my mind/);
  await assert.rejects(router.chat(utility, sayOk, { signal: controller.signal }), /changed my mind/);
  for await (const chunk of router.stream(utility, { ...story, max_tokens: 900 })) if (chunk.choices[0]?.delta?.content) break;
  for (const end = Date.now() + 20_000; (local.stderr().match(/client gone/g) ?? []).length < 2; await pause(20)) {
    assert.ok(Date.now() < end, local.stderr());
  }
}));
