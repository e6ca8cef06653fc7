// The Responses API through the official openai client.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI, { BadRequestError, NotFoundError } from 'openai';
import { zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { findMessages, findParameters } from './restaurants.mjs';
import { startServer } from './server.mjs';

const model = 'quern-test';
const story = 'Tell me a story about a cat and a ball.';
const find = {
  model,
  input: findMessages,
  tools: [{
    type: 'function', name: 'find_restaurants', description: 'Find restaurants by location and by category',
      parameters: findParameters, strict: false,
  }],
};
let server, client;

before(async () => {
  server = await startServer('--alias', model, '--temp', '0');
  client = new OpenAI({ baseURL: server.baseURL, apiKey: 'not-required', maxRetries: 0, timeout: 120_000 });
});
after(async () => {
  assert.equal(await server.stop(), 0, server.stderr());
});

test('creates a response', async () => {
  const response = await client.responses.create({ model, instructions: 'You are a helpful assistant.', input: 'Say OK',
    store: false });
  assert.match(response.id, /^resp_/);
  assert.equal(response.status, 'completed');
  assert.equal(response.output_text, 'OK');
  assert.equal(response.model, model);
  assert.equal(response.instructions, 'You are a helpful assistant.');
  assert.equal(response.usage.total_tokens, response.usage.input_tokens + response.usage.output_tokens);
});

test('the limit makes it incomplete', async () => {
  const response = await client.responses.create({ model, input: story, max_output_tokens: 5 });
  assert.equal(response.status, 'incomplete');
  assert.equal(response.incomplete_details.reason, 'max_output_tokens');
  assert.equal(response.usage.output_tokens, 5);
});

test('streams every event of the life cycle', async () => {
  const ask = { model, input: story, max_output_tokens: 30 };
  const whole = await client.responses.create(ask);
  const events = [];
  for await (const event of await client.responses.create({ ...ask, stream: true })) events.push(event);
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, i) => i));
  const types = events.map((event) => event.type).filter((type, i, all) => type !== all[i - 1]);
  assert.deepEqual(types, ['response.created', 'response.in_progress', 'response.output_item.added',
    'response.content_part.added', 'response.output_text.delta',
    'response.output_text.done', 'response.content_part.done', 'response.output_item.done', 'response.incomplete']);
  assert.equal(events.filter((event) => event.type === 'response.output_text.delta').map((event) => event.delta).join(''),
    whole.output_text);
});

test("the client's own stream helper assembles the same response", async () => {
  const stream = client.responses.stream({ model, input: 'Say OK' });
  let text = '';
  stream.on('response.output_text.delta', (event) => { text = event.snapshot; });
  const response = await stream.finalResponse();
  assert.equal(text, 'OK');
  assert.equal(response.output_text, 'OK');
  assert.equal(response.status, 'completed');
});

test('a call, and its result sent back with all that came', async () => {
  const response = await client.responses.create(find);
  const [call] = response.output;
  assert.equal(call.type, 'function_call');
  assert.equal(call.name, 'find_restaurants');
  assert.equal(JSON.parse(call.arguments).city, 'San Jose');
  const next = await client.responses.create({
    ...find, input: [...findMessages, ...response.output, { type: 'function_call_output', call_id: call.call_id,
      output: '{"name": "El Sol"}' }], max_output_tokens: 60,
  });
  assert.equal(next.output[0].type, 'message');
  assert.ok(next.output_text.length > 0);
  assert.ok(next.usage.input_tokens > response.usage.input_tokens);
});

test('the stream helper puts the same call together', async () => {
  const whole = await client.responses.create(find);
  const stream = client.responses.stream(find);
  let deltas = 0, snapshot;
  stream.on('response.function_call_arguments.delta', (event) => { deltas++; snapshot = event.snapshot; });
  const response = await stream.finalResponse();
  assert.ok(deltas > 3);
  assert.equal(snapshot, whole.output[0].arguments);
  assert.equal(response.output[0].arguments, whole.output[0].arguments);
});

test('structured output through zod is what the schema says', async () => {
  const format = zodTextFormat(z.object({ name: z.string().max(12), size: z.enum(['small', 'large']),
    tags: z.array(z.string().max(6)).max(2) }), 'thing');
  const response = await client.responses.parse({ model, input: story, text: { format }, temperature: 1,
    max_output_tokens: 300 });
  assert.equal(response.status, 'completed');
  assert.ok(['small', 'large'].includes(response.output_parsed.size));
});

test('a tool that must be called is called', async () => {
  const response = await client.responses.create({ ...find, input: 'Say OK',
    tool_choice: { type: 'function', name: 'find_restaurants' }, max_output_tokens: 200 });
  assert.equal(response.output[0].type, 'function_call');
  assert.deepEqual(Object.keys(JSON.parse(response.output[0].arguments)).slice(0, 2), ['city', 'cuisine']);
});

test('what needs a store is refused by name', async () => {
  for (const [changes, param] of [
    [{ previous_response_id: 'resp_1' }, 'previous_response_id'],
    [{ conversation: 'conv_1' }, 'conversation'],
    [{ background: true }, 'background'],
    [{ input: [{ role: 'user', content: [{ type: 'input_image', image_url: 'data:' }] }] }, 'input[0].content[0]'],
    [{ tools: [{ type: 'web_search' }] }, 'tools[0].type'],
  ]) {
    await assert.rejects(client.responses.create({ model, input: 'x', ...changes }), (error) => {
      assert.ok(error instanceof BadRequestError, String(error));
      assert.equal(error.param, param);
      return true;
    });
  }
  await assert.rejects(client.responses.retrieve('resp_1'), NotFoundError);
});
