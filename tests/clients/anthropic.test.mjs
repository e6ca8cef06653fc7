// The Messages API through Anthropic's official client.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Anthropic, { AuthenticationError, BadRequestError, InternalServerError, NotFoundError } from '@anthropic-ai/sdk';
import { findMessages, findParameters } from './restaurants.mjs';
import { startServer } from './server.mjs';

const model = 'quern-test';
const story = [{ role: 'user', content: 'Tell me a story about a cat and a ball.' }];
const sayOk = { model, max_tokens: 20, messages: [{ role: 'user', content: 'Say OK' }] };
const findTool = { name: 'find_restaurants', description: 'Find restaurants by location and by category',
  input_schema: findParameters };
const find = { model, max_tokens: 200, messages: findMessages, tools: [findTool] };
let server, client;

const connect = (to, apiKey = 'not-required') => new Anthropic({ baseURL: `http://127.0.0.1:${to.port}`, apiKey, maxRetries: 0,
  timeout: 120_000 });

before(async () => {
  server = await startServer('--alias', model, '--temp', '0');
  client = connect(server);
});
after(async () => {
  assert.equal(await server.stop(), 0, server.stderr());
});

test('creates a message', async () => {
  const message = await client.messages.create(
    { ...sayOk, system: [{ type: 'text', text: 'You are a helpful assistant.', cache_control: { type: 'ephemeral' } }] });
  assert.match(message.id, /^msg_/);
  assert.equal(message.role, 'assistant');
  assert.equal(message.model, model);
  assert.deepEqual(message.content.map((block) => [block.type, block.text]), [['text', 'OK']]);
  assert.equal(message.stop_reason, 'end_turn');
  assert.equal(message.usage.output_tokens, 1);
});

test('says why it stopped', async () => {
  const cut = await client.messages.create({ model, max_tokens: 5, messages: story });
  assert.equal(cut.stop_reason, 'max_tokens');
  const stopped = await client.messages.create({ model, max_tokens: 60, messages: story, stop_sequences: ['never', 'little'] });
  assert.equal(stopped.stop_reason, 'stop_sequence');
  assert.equal(stopped.stop_sequence, 'little');
});

test('streams events', async () => {
  const ask = { model, max_tokens: 30, messages: story };
  const whole = await client.messages.create(ask);
  const events = [];
  for await (const event of await client.messages.create({ ...ask, stream: true })) events.push(event);
  const types = events.map((event) => event.type).filter((type, i, all) => type !== all[i - 1]);
  assert.deepEqual(types, ['message_start', 'content_block_start', 'content_block_delta', 'content_block_stop', 'message_delta',
    'message_stop']);
  assert.equal(events.filter((event) => event.type === 'content_block_delta').map((event) => event.delta.text).join(''),
    whole.content[0].text);
  assert.equal(events.at(-2).delta.stop_reason, 'max_tokens');
  assert.equal(events.at(-2).usage.output_tokens, 30);
});

test("the client's own stream helper assembles the message", async () => {
  const stream = client.messages.stream(sayOk);
  let text = '';
  stream.on('text', (piece) => { text += piece; });
  const message = await stream.finalMessage();
  assert.equal(text, 'OK');
  assert.equal(message.stop_reason, 'end_turn');
  assert.equal(message.usage.output_tokens, 1);
});

test('a tool is used, and its result sent back', async () => {
  const message = await client.messages.create(find);
  assert.equal(message.stop_reason, 'tool_use');
  const [use] = message.content;
  assert.equal(use.type, 'tool_use');
  assert.match(use.id, /^toolu_/);
  assert.equal(use.input.city, 'San Jose');
  const streamed = await client.messages.stream(find).finalMessage();
  assert.deepEqual(streamed.content[0].input, use.input);
  const next = await client.messages.create({
    ...find, messages: [...findMessages, { role: 'assistant', content: message.content },
      { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: '{"name": "El Sol"}' }] }],
  });
  assert.equal(next.content[0].type, 'text');
});

test("the client's tool runner goes round by itself", async () => {
  const asked = [];
  const runner = client.beta.messages.toolRunner({
    ...find, max_iterations: 2, tools: [{ ...findTool, type: 'custom', parse: (input) => input,
      run: (input) => { asked.push(input); return '{"name": "El Sol"}'; } }],
  });
  const last = await runner;
  assert.ok(asked.length >= 1);
  assert.equal(asked[0].city, 'San Jose');
  assert.ok(last.content.length > 0);
});

test('a tool that must be used is used', async () => {
  const message = await client.messages.create({ ...find, messages: sayOk.messages, tool_choice: { type: 'any' } });
  assert.equal(message.content[0].type, 'tool_use');
  assert.ok('city' in message.content[0].input && 'cuisine' in message.content[0].input);
});

test('counts tokens', async () => {
  const { max_tokens: _, ...count } = find;
  const { input_tokens } = await client.messages.countTokens(count);
  const { usage } = await client.messages.create(find);
  assert.equal(input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
  const again = (await client.messages.create(find)).usage;
  assert.equal(again.input_tokens, 1);
  assert.equal(again.cache_read_input_tokens, input_tokens - 1);
});

test('errors are of the right class and type', async () => {
  const rejects = (promise, type, status, name) => assert.rejects(promise, (error) => {
    assert.ok(error instanceof type, `${error.constructor.name}: ${error.message}`);
    assert.equal(error.status, status);
    assert.equal(error.error.type, 'error');
    assert.equal(error.error.error.type, name);
    return true;
  });
  await rejects(client.messages.create({ ...sayOk, temperature: 9 }), BadRequestError, 400, 'invalid_request_error');
  await rejects(client.messages.create({ ...sayOk, thinking: { type: 'enabled', budget_tokens: 1024 } }), BadRequestError, 400,
    'invalid_request_error');
  const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: '' } };
  await rejects(client.messages.create({ ...sayOk, messages: [{ role: 'user', content: [image] }] }), BadRequestError, 400,
    'invalid_request_error');
  await rejects(client.messages.create({ ...sayOk, messages: [{ role: 'user', content: 'word '.repeat(5000) }] }),
    BadRequestError, 400, 'invalid_request_error');
  await rejects(client.messages.batches.list(), NotFoundError, 404, 'not_found_error');
  await rejects(client.messages.create({ ...sayOk, temperature: 9, stream: true }), BadRequestError, 400,
    'invalid_request_error');
  const guarded = await startServer('--api-key', 'sesame');
  try {
    await rejects(connect(guarded, 'wrong').messages.create(sayOk), AuthenticationError, 401, 'authentication_error');
    assert.equal((await connect(guarded, 'sesame').messages.create({ ...sayOk, temperature: 0 })).content[0].text, 'OK');
    const token = new Anthropic({ baseURL: `http://127.0.0.1:${guarded.port}`, authToken: 'sesame', apiKey: null,
      maxRetries: 0 });
    assert.equal((await token.messages.create({ ...sayOk, temperature: 0 })).content[0].text, 'OK');
  } finally {
    assert.equal(await guarded.stop(), 0);
  }
});

test('a full queue is an overload that the client may try again', async () => {
  const small = await startServer('--queue', '1', '-np', '1');
  try {
    const busy = connect(small);
    const asks = Array.from({ length: 12 },
      () => busy.messages.create({ model, max_tokens: 200, messages: story, temperature: 1 }).then(() => null, (error) => error));
    const errors = (await Promise.all(asks)).filter(Boolean);
    assert.ok(errors.length > 0 && errors.length < 12);
    for (const error of errors) {
      assert.ok(error instanceof InternalServerError);
      assert.equal(error.error.error.type, 'overloaded_error');
    }
  } finally {
    assert.equal(await small.stop(), 0);
  }
});
