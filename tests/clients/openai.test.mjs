// The official openai client, as it comes from the registry, against a real server.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, test } from 'node:test';
import OpenAI, { APIUserAbortError, AuthenticationError, BadRequestError, NotFoundError } from 'openai';
import { startServer } from './server.mjs';

const sayOk = [{ role: 'user', content: 'Say OK' }];
const story = [{ role: 'user', content: 'Tell me a story about a cat and a ball.' }];
let server, client;

before(async () => {
  server = await startServer('--alias', 'quern-test');
  client = new OpenAI({ baseURL: server.baseURL, apiKey: 'not-required', maxRetries: 0, timeout: 120_000 });
});
after(async () => {
  // Whatever the tests did to it, the server still ends cleanly.
  assert.equal(await server.stop(), 0, server.stderr());
});

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}
const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');

test('lists the model', async () => {
  const models = await collect(await client.models.list());
  assert.deepEqual(models.map((entry) => entry.id), ['quern-test']);
  assert.equal(models[0].object, 'model');
});

test('completes a chat', async () => {
  const reply = await client.chat.completions.create({ model: 'quern-test', messages: sayOk, max_tokens: 10, temperature: 0 });
  assert.equal(reply.object, 'chat.completion');
  assert.match(reply.id, /^chatcmpl-/);
  assert.equal(reply.model, 'quern-test');
  assert.ok(Math.abs(reply.created - Date.now() / 1000) < 600);
  assert.equal(reply.choices.length, 1);
  const [choice] = reply.choices;
  assert.equal(choice.index, 0);
  assert.equal(choice.finish_reason, 'stop');
  assert.equal(choice.message.role, 'assistant');
  assert.equal(choice.message.content, 'OK');
  const { usage } = reply;
  assert.ok(usage.prompt_tokens > 10);
  assert.ok(usage.completion_tokens >= 1);
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
});

test('takes text parts and max_completion_tokens, and says when it was cut short', async () => {
  const reply = await client.chat.completions.create({
    model: 'quern-test',
    messages: [
      { role: 'system', content: 'You are a helpful assistant.' },
      { role: 'user', content: [{ type: 'text', text: 'Tell me a story about ' }, { type: 'text', text: 'a cat and a ball.' }] },
    ],
    max_completion_tokens: 5,
    temperature: 0,
  });
  assert.equal(reply.choices[0].finish_reason, 'length');
  assert.equal(reply.usage.completion_tokens, 5);
  assert.ok(reply.choices[0].message.content.length > 0);
});

test('the same seed gives the same text, another seed another', async () => {
  const ask = async (seed) => {
    const reply = await client.chat.completions.create({
      model: 'quern-test', messages: story, max_tokens: 40, temperature: 1, top_p: 0.95, seed,
    });
    return reply.choices[0].message.content;
  };
  const first = await ask(7);
  assert.equal(await ask(7), first);
  const others = [await ask(8), await ask(9), await ask(10)];
  assert.ok(others.some((text) => text !== first));
});

test('a stop string ends the answer before itself', async () => {
  const ask = { model: 'quern-test', messages: story, max_tokens: 60, temperature: 0 };
  const whole = (await client.chat.completions.create(ask)).choices[0].message.content;
  const stop = whole.split(' ')[4];
  assert.ok(stop, whole);
  const cut = (await client.chat.completions.create({ ...ask, stop: [stop] })).choices[0];
  assert.equal(cut.finish_reason, 'stop');
  assert.equal(cut.message.content, whole.slice(0, whole.indexOf(stop)));
});

test('streams the same answer that it gives whole', async () => {
  const ask = { model: 'quern-test', messages: story, max_tokens: 60, temperature: 0 };
  const whole = await client.chat.completions.create(ask);
  const chunks = await collect(await client.chat.completions.create({ ...ask, stream: true }));
  assert.ok(chunks.length > 5, 'it comes in pieces');
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  assert.equal(textOf(chunks), whole.choices[0].message.content);
  const reasons = chunks.map((chunk) => chunk.choices[0]?.finish_reason).filter(Boolean);
  assert.deepEqual(reasons, [whole.choices[0].finish_reason]);
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  for (const chunk of chunks) {
    assert.equal(chunk.object, 'chat.completion.chunk');
    assert.equal(chunk.model, 'quern-test');
    assert.ok(!chunk.usage, 'usage was not asked for');
  }
});

test('a stream ends with the usage when that is asked for', async () => {
  const ask = { model: 'quern-test', messages: story, max_tokens: 20, temperature: 0 };
  const chunks = await collect(
    await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } }));
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.deepEqual(last.usage, (await client.chat.completions.create(ask)).usage);
  for (const chunk of chunks) assert.ok(chunk.usage === null || chunk.usage === undefined);
});

test("the client's own stream helper assembles the answer", async () => {
  const reply = await client.chat.completions
    .stream({ model: 'quern-test', messages: sayOk, max_tokens: 10, temperature: 0 }).finalChatCompletion();
  assert.equal(reply.choices[0].message.content, 'OK');
  assert.equal(reply.choices[0].finish_reason, 'stop');
});

test('a wrong parameter is a BadRequestError that names it', async () => {
  const ask = (changes) => client.chat.completions.create({ model: 'quern-test', messages: sayOk, max_tokens: 5, ...changes });
  for (const [changes, param] of [
    [{ temperature: 'hot' }, 'temperature'],
    [{ temperature: -1 }, 'temperature'],
    [{ top_p: 7 }, 'top_p'],
    [{ max_tokens: -5 }, 'max_tokens'],
    [{ messages: 'hello' }, 'messages'],
    [{ messages: [] }, 'messages'],
  ]) {
    await assert.rejects(ask(changes), (error) => {
      assert.ok(error instanceof BadRequestError, `${param}: ${error}`);
      assert.equal(error.status, 400);
      assert.equal(error.type, 'invalid_request_error');
      assert.ok(String(error.param).startsWith(param), `${error.param} for ${param}`);
      assert.ok(error.message.length > 10);
      return true;
    });
  }
});

test('a prompt beyond the context is a BadRequestError with both numbers', async () => {
  const content = 'word '.repeat(5000);
  await assert.rejects(client.chat.completions.create({ model: 'quern-test', messages: [{ role: 'user', content }] }),
    (error) => {
    assert.ok(error instanceof BadRequestError);
    assert.equal((error.message.replace(/^400 /, '').match(/\d+/g) ?? []).length >= 2, true, error.message);
    return true;
  });
});

test('a stream that cannot start is an error too, not an empty stream', async () => {
  await assert.rejects(
    client.chat.completions.create({ model: 'quern-test', messages: sayOk, temperature: 'hot', stream: true }), BadRequestError);
});

test('an address that does not exist is a NotFoundError', async () => {
  await assert.rejects(client.get('/no-such-thing'), NotFoundError);
});

test('an aborted stream ends, and the server goes on', async () => {
  const controller = new AbortController();
  const stream = await client.chat.completions.create(
    { model: 'quern-test', messages: story, max_tokens: 900, temperature: 1, seed: 1, stream: true },
    { signal: controller.signal });
  let received = 0;
  try {
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content && ++received === 3) controller.abort();
    }
  } catch (error) {
    assert.ok(error instanceof APIUserAbortError, String(error));
  }
  // What had arrived already may still be told.
  assert.ok(received >= 3 && received < 300, String(received));
  const reply = await client.chat.completions.create({ model: 'quern-test', messages: sayOk, max_tokens: 10, temperature: 0 });
  assert.equal(reply.choices[0].message.content, 'OK');
});

test('requests at the same time get each their own answer', async () => {
  const replies = await Promise.all([sayOk, story, sayOk, [{ role: 'user', content: 'Hello' }]].map((messages) =>
    client.chat.completions.create({ model: 'quern-test', messages, max_tokens: 20, temperature: 0 })));
  const [ok, told, okAgain, hello] = replies.map((reply) => reply.choices[0].message.content);
  assert.equal(ok, 'OK');
  assert.equal(okAgain, 'OK');
  assert.match(told, /^Once upon a time/);
  assert.match(hello, /^Hello/);
});

test('the key is checked when the server has one', async () => {
  const guarded = await startServer('--api-key', 'sesame');
  try {
    const withKey = (apiKey) => new OpenAI({ baseURL: guarded.baseURL, apiKey, maxRetries: 0 });
    await assert.rejects(withKey('wrong').chat.completions.create({ model: 'x', messages: sayOk }), AuthenticationError);
    const reply = await withKey('sesame').chat.completions.create(
      { model: 'x', messages: sayOk, max_tokens: 10, temperature: 0 });
    assert.equal(reply.choices[0].message.content, 'OK');
  } finally {
    assert.equal(await guarded.stop(), 0);
  }
});

test('the client retries while the server is away for a moment', async () => {
  // A gate in front of the server answers 503 twice, as a server that is still loading does, and then lets through.
  let asked = 0;
  const gate = http.createServer((request, response) => {
    if (++asked <= 2) {
      response.writeHead(503, { 'content-type': 'application/json' }).end('{"error":{"message":"loading","type":"x"}}');
      return;
    }
    request.pipe(http.request(
      { port: server.port, host: '127.0.0.1', method: request.method, path: request.url, headers: request.headers },
      (answer) => { response.writeHead(answer.statusCode, answer.headers); answer.pipe(response); }));
  });
  await new Promise((done) => gate.listen(0, '127.0.0.1', done));
  try {
    const patient = new OpenAI({ baseURL: `http://127.0.0.1:${gate.address().port}/v1`, apiKey: 'x', maxRetries: 3 });
    const reply = await patient.chat.completions.create({ model: 'x', messages: sayOk, max_tokens: 10, temperature: 0 });
    assert.equal(reply.choices[0].message.content, 'OK');
    assert.equal(asked, 3);
  } finally {
    gate.close();
    gate.closeAllConnections();
  }
});
