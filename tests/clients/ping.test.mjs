// Signs of life in streams that wait: official clients read past them.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import Anthropic from '@anthropic-ai/sdk';
import { streamText } from 'ai';
import OpenAI from 'openai';
import { startServer } from './server.mjs';

const model = 'quern-test';
const sayOk = [{ role: 'user', content: 'Say OK' }];
let server;

before(async () => {
  server = await startServer('--alias', model, '--temp', '0', '-t', '1', '-np', '1', '--sse-ping-interval', '1');
});
after(async () => {
  assert.equal(await server.stop(), 0, server.stderr());
});

/** Runs ask(fetch) while the only place is taken, until the stream that it reads has had two pings; resolves to what it does. */
async function whileBusy(ping, ask) {
  const busy = new AbortController();
  const story = { messages: [{ role: 'user', content: 'Tell me a story.' }], n: 60, temperature: 1 };
  const blocker = fetch(`${server.baseURL}/chat/completions`, { method: 'POST', signal: busy.signal,
    headers: { 'content-type': 'application/json' }, body: JSON.stringify(story) });
  blocker.catch(() => {});
  let pings = 0;
  const watched = async (url, init) => {
    const response = await fetch(url, init);
    const [theirs, ours] = response.body.tee();
    (async () => {
      let text = '';
      for await (const piece of ours.pipeThrough(new TextDecoderStream())) {
        text += piece;
        pings = text.split(ping).length - 1;
        if (pings >= 2) busy.abort();
      }
    })();
    return new Response(theirs, response);
  };
  await new Promise((done) => setTimeout(done, 200)); // the blocker is in the queue
  const result = await ask(watched);
  assert.ok(pings >= 2, `${pings} pings`);
  return result;
}

test('openai, chat', async () => {
  const text = await whileBusy('\n:\n\n', async (fetch) => {
    const client = new OpenAI({ baseURL: server.baseURL, apiKey: 'not-required', maxRetries: 0, fetch });
    let said = '';
    for await (const chunk of await client.chat.completions.create({ model, messages: sayOk, temperature: 0, stream: true }))
      said += chunk.choices[0]?.delta.content ?? '';
    return said;
  });
  assert.equal(text, 'OK');
});

test('openai, responses', async () => {
  const text = await whileBusy('\n:\n\n', async (fetch) => {
    const client = new OpenAI({ baseURL: server.baseURL, apiKey: 'not-required', maxRetries: 0, fetch });
    const final = await client.responses.stream({ model, input: 'Say OK', temperature: 0 }).finalResponse();
    return final.output_text;
  });
  assert.equal(text, 'OK');
});

test('anthropic', async () => {
  const message = await whileBusy('event: ping\n', async (fetch) => {
    const client = new Anthropic({ baseURL: `http://127.0.0.1:${server.port}`, apiKey: 'not-required', maxRetries: 0, fetch });
    return client.messages.stream({ model, max_tokens: 20, messages: sayOk, temperature: 0 }).finalMessage();
  });
  assert.equal(message.content[0].text, 'OK');
});

test('the AI SDK', async () => {
  const text = await whileBusy('\n:\n\n', async (fetch) => {
    const provider = createOpenAICompatible({ name: 'quern', baseURL: server.baseURL, apiKey: 'not-required', fetch });
    return await streamText({ model: provider(model), messages: sayOk, temperature: 0, maxRetries: 0 }).text;
  });
  assert.equal(text, 'OK');
});
