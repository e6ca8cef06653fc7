// LangChain's OpenAI client, unmodified, against a real server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { HumanMessage, ToolMessage } from '@langchain/core/messages';
import { ChatOpenAI } from '@langchain/openai';
import { startServer } from './server.mjs';
import { findMessages, findTool } from './restaurants.mjs';

let server, fields;

before(async () => {
  server = await startServer('--alias', 'quern-test');
  fields = { model: 'quern-test', apiKey: 'not-required', temperature: 0, maxRetries: 0,
    configuration: { baseURL: server.baseURL } };
});
after(async () => {
  assert.equal(await server.stop(), 0, server.stderr());
});

test('invoke', async () => {
  const reply = await new ChatOpenAI({ ...fields, maxTokens: 10 }).invoke('Say OK');
  assert.equal(reply.content, 'OK');
  assert.equal(reply.response_metadata.finish_reason, 'stop');
  assert.equal(reply.usage_metadata.output_tokens, 1);
});

test('stream', async () => {
  const chat = new ChatOpenAI({ ...fields, maxTokens: 30, streamUsage: true });
  const whole = await chat.invoke('Tell me a story about a cat and a ball.');
  let text = '', usage;
  for await (const chunk of await chat.stream('Tell me a story about a cat and a ball.')) {
    text += chunk.content;
    usage = chunk.usage_metadata ?? usage;
  }
  assert.equal(text, whole.content);
  assert.equal(usage.output_tokens, 30);
});

async function collect(stream) {
  let whole;
  for await (const chunk of stream) whole = whole ? whole.concat(chunk) : chunk;
  return whole;
}

for (const streaming of [false, true]) {
  test(`tools${streaming ? ', streamed' : ''}`, async () => {
    const chat = new ChatOpenAI({ ...fields, maxTokens: 80 }).bindTools([findTool]);
    const question = new HumanMessage(findMessages[0].content);
    const reply = streaming ? await collect(await chat.stream([question])) : await chat.invoke([question]);
    assert.equal(reply.tool_calls.length, 1);
    const [call] = reply.tool_calls;
    assert.equal(call.name, 'find_restaurants');
    assert.equal(call.args.city, 'San Jose');
    const next = await chat.invoke(
      [question, reply, new ToolMessage({ tool_call_id: call.id, content: '[{"restaurant_name": "El Sol"}]' })]);
    assert.ok(next.content.length > 0 || next.tool_calls.length > 0);
  });
}
