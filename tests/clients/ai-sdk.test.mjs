// The AI SDK (ai) with its provider for OpenAI-compatible servers, unmodified, against a real server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { startServer } from './server.mjs';
import { findMessages, findParameters } from './restaurants.mjs';

let server, provider;

before(async () => {
  server = await startServer('--alias', 'quern-test');
  provider = createOpenAICompatible({ name: 'quern', baseURL: server.baseURL, apiKey: 'not-required', includeUsage: true });
});
after(async () => {
  assert.equal(await server.stop(), 0, server.stderr());
});

const find = (seen) => tool({
  description: 'Find restaurants by location and by category',
  inputSchema: jsonSchema(findParameters),
  execute: async ({ city, cuisine }) => {
    seen.push({ city, cuisine });
    return [{ restaurant_name: 'El Sol', city }];
  },
});

test('generateText', async () => {
  const reply = await generateText({ model: provider('quern-test'), prompt: 'Say OK', temperature: 0, maxOutputTokens: 10,
    maxRetries: 0 });
  assert.equal(reply.text, 'OK');
  assert.equal(reply.finishReason, 'stop');
  assert.equal(reply.usage.outputTokens, 1);
});

test('streamText', async () => {
  const ask = { model: provider('quern-test'), prompt: 'Tell me a story about a cat and a ball.', temperature: 0,
    maxOutputTokens: 40, maxRetries: 0 };
  const whole = await generateText(ask);
  const stream = streamText(ask);
  let text = '', parts = 0;
  for await (const part of stream.textStream) {
    text += part;
    parts++;
  }
  assert.equal(text, whole.text);
  assert.ok(parts > 10);
  assert.equal(await stream.finishReason, 'length');
  assert.equal((await stream.usage).outputTokens, 40);
});

for (const streamed of [false, true]) {
  test(`tools, in two steps${streamed ? ', streamed' : ''}`, async () => {
    const seen = [];
    const ask = {
      model: provider('quern-test'), messages: findMessages, temperature: 0, maxOutputTokens: 80, maxRetries: 0,
      tools: { find_restaurants: find(seen) }, stopWhen: stepCountIs(2),
    };
    const reply = streamed ? streamText(ask) : await generateText(ask);
    const steps = await reply.steps;
    assert.equal(steps.length, 2);
    assert.equal(steps[0].finishReason, 'tool-calls');
    assert.equal(steps[0].toolCalls[0].toolName, 'find_restaurants');
    assert.equal(steps[0].toolCalls[0].input.city, 'San Jose');
    assert.equal(seen[0].city, 'San Jose');
    assert.equal(steps[0].toolResults[0].output[0].restaurant_name, 'El Sol');
  });
}

test('a refused request says which parameter', async () => {
  await assert.rejects(generateText({ model: provider('quern-test'), prompt: 'x', temperature: 9, maxRetries: 0 }),
    (error) => error.statusCode === 400 && /temperature/.test(error.message));
});
