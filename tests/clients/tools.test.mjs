// The official openai client where it goes beyond a plain chat: tools and its runner, several answers, log probabilities,
// text completions.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI, { BadRequestError } from 'openai';
import { startServer } from './server.mjs';
import { findMessages, findTool } from './restaurants.mjs';

const story = [{ role: 'user', content: 'Tell me a story about a cat and a ball.' }];
let server, client;

before(async () => {
  server = await startServer('--alias', 'quern-test', '--temp', '0');
  client = new OpenAI({ baseURL: server.baseURL, apiKey: 'not-required', maxRetries: 0, timeout: 120_000 });
});
after(async () => {
  assert.equal(await server.stop(), 0, server.stderr());
});

test('the model calls a tool', async () => {
  const reply = await client.chat.completions.create({ model: 'quern-test', messages: findMessages, tools: [findTool] });
  const [choice] = reply.choices;
  assert.equal(choice.finish_reason, 'tool_calls');
  assert.equal(choice.message.content, null);
  assert.equal(choice.message.tool_calls.length, 1);
  const [call] = choice.message.tool_calls;
  assert.match(call.id, /^call_/);
  assert.equal(call.type, 'function');
  assert.equal(call.function.name, 'find_restaurants');
  assert.equal(JSON.parse(call.function.arguments).city, 'San Jose');
});

test('the stream helper puts the same call together', async () => {
  const ask = { model: 'quern-test', messages: findMessages, tools: [findTool] };
  const whole = await client.chat.completions.create(ask);
  const stream = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } });
  let deltas = 0;
  stream.on('tool_calls.function.arguments.delta', () => { deltas++; });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].finish_reason, 'tool_calls');
  assert.deepEqual(final.choices[0].message.tool_calls.map((call) => call.function.arguments),
    whole.choices[0].message.tool_calls.map((call) => call.function.arguments));
  assert.ok(deltas > 3);
  assert.deepEqual(final.usage, whole.usage);
});

for (const stream of [false, true]) {
  test(`the tool runner calls the function and goes on${stream ? ', streamed' : ''}`, async () => {
    const seen = [];
    const runner = client.chat.completions.runTools({
      model: 'quern-test',
      messages: findMessages,
      max_tokens: 60,
      stream,
      tools: [{
        type: 'function',
        function: {
          ...findTool.function,
          parse: JSON.parse,
          function: ({ city, cuisine }) => {
            seen.push({ city, cuisine });
            return JSON.stringify([{ restaurant_name: 'El Sol', city }]);
          },
        },
      }],
    }, { maxChatCompletions: 2 });
    const messages = [];
    runner.on('message', (message) => messages.push(message));
    await runner.done().catch((error) => assert.match(error.message, /maxChatCompletions|max/i));
    assert.ok(seen.length >= 1);
    assert.equal(seen[0].city, 'San Jose');
    assert.equal(messages[0].role, 'assistant');
    assert.equal(messages[1].role, 'tool');
    assert.equal(messages[1].tool_call_id, messages[0].tool_calls[0].id);
    assert.equal(messages[2].role, 'assistant');
  });
}

test('tool_choice none leaves the tools alone', async () => {
  const reply = await client.chat.completions.create({ model: 'quern-test', messages: findMessages, tools: [findTool],
    tool_choice: 'none' });
  assert.equal(reply.choices[0].finish_reason, 'stop');
  assert.equal(reply.choices[0].message.tool_calls, undefined);
  assert.ok(reply.choices[0].message.content.length > 0);
});

test('n answers, whole and streamed', async () => {
  const ask = { model: 'quern-test', messages: story, max_tokens: 15, n: 3, temperature: 1.4, seed: 5 };
  const whole = await client.chat.completions.create(ask);
  const texts = whole.choices.map((choice) => choice.message.content);
  assert.equal(new Set(texts).size, 3);
  const stream = client.chat.completions.stream(ask);
  const final = await stream.finalChatCompletion();
  assert.deepEqual(final.choices.map((choice) => choice.message.content), texts);
});

test('log probabilities', async () => {
  const ask = { model: 'quern-test', messages: story, max_tokens: 20, logprobs: true, top_logprobs: 5 };
  const whole = await client.chat.completions.create(ask);
  const tokens = whole.choices[0].logprobs.content;
  assert.equal(tokens.length, 20);
  assert.equal(tokens.map((token) => token.token).join(''), whole.choices[0].message.content);
  for (const token of tokens) {
    assert.deepEqual(Buffer.from(token.bytes).toString(), token.token);
    assert.equal(token.top_logprobs.length, 5);
    assert.equal(token.top_logprobs[0].logprob, token.logprob);
  }
  const final = await client.chat.completions.stream(ask).finalChatCompletion();
  assert.deepEqual(final.choices[0].logprobs.content, tokens);
});

test('text completions', async () => {
  const ask = { model: 'quern-test', prompt: ['Once upon a time', 'The dog'], max_tokens: 8, logprobs: 1 };
  const whole = await client.completions.create(ask);
  assert.equal(whole.choices[0].text, ', there was a little boy named');
  assert.equal(whole.choices[0].logprobs.tokens.join(''), whole.choices[0].text);
  const texts = ['', ''];
  for await (const chunk of await client.completions.create({ ...ask, stream: true })) {
    texts[chunk.choices[0].index] += chunk.choices[0].text;
  }
  assert.deepEqual(texts, whole.choices.map((choice) => choice.text));
  await assert.rejects(client.completions.create({ model: 'quern-test', prompt: 'a', suffix: 'b' }),
    (error) => error instanceof BadRequestError && error.param === 'suffix');
});
