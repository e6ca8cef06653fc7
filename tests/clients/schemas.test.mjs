// 300 schemas, five samples of each at temperature 1.5: what ends by itself must be valid by ajv, an independent validator;
// and what cannot be enforced must be refused.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import Ajv2020 from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { startServer } from './server.mjs';

const { valid, refused } = JSON.parse(readFileSync(new URL('schemas.json', import.meta.url), 'utf8'));
const samples = 5, maxTokens = 160, atOnce = 4;
const ajv = new Ajv2020({ strict: false, allErrors: true });
addFormats(ajv);
let server;

before(async () => { server = await startServer('--parallel', String(atOnce), '--ctx-size', '512'); });
after(async () => { assert.equal(await server.stop(), 0, server.stderr()); });

async function ask(schema, seed, more) {
  const response = await fetch(`${server.baseURL}/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      messages: [{ role: 'user', content: 'Answer.' }], temperature: 1.5, seed, max_tokens: maxTokens,
      response_format: { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema } }, ...more,
    }),
  });
  return { status: response.status, body: await response.text() };
}

/** Runs the jobs, a few at a time. */
async function run(jobs) {
  const queue = jobs.values();
  await Promise.all(Array.from({ length: atOnce }, async () => { for (const job of queue) await job(); }));
}

test(`${valid.length} schemas, ${samples} samples each`, { timeout: 600_000 }, async (t) => {
  assert.equal(valid.length, 300);
  const wrong = [], texts = new Set();
  let ended = 0, cut = 0;
  await run(valid.flatMap(({ name, schema }, index) => {
    const validate = ajv.compile(schema);
    return Array.from({ length: samples }, (_, k) => async () => {
      const { status, body } = await ask(schema, 1000 * index + k);
      if (status !== 200) return wrong.push(`${name}: ${status} ${body}`);
      const { message, finish_reason: reason } = JSON.parse(body).choices[0];
      assert.ok(message.content.isWellFormed?.() ?? true);
      if (reason === 'length') return cut++;
      ended++;
      texts.add(`${index} ${message.content}`);
      try {
        if (!validate(JSON.parse(message.content))) wrong.push(`${name}: ${message.content}: ${ajv.errorsText(validate.errors)}`);
      } catch (error) {
        wrong.push(`${name}: ${message.content}: ${error.message}`);
      }
    });
  }));
  t.diagnostic(`${ended} ended by themselves (${texts.size} different), ${cut} were cut short, ${wrong.length} are wrong`);
  assert.deepEqual(wrong, []);
  assert.ok(ended >= 0.8 * valid.length * samples, `only ${ended} ended by themselves`);
  assert.ok(texts.size >= 0.4 * ended, `only ${texts.size} different answers`);
});

test(`${refused.length} schemas that cannot be enforced are refused, with the place`, async () => {
  for (const { name, pointer, schema } of refused) {
    const { status, body } = await ask(schema, 1, { max_tokens: 5 });
    assert.equal(status, 400, `${name}: ${body}`);
    const { error } = JSON.parse(body);
    assert.equal(error.param, 'response_format', name);
    assert.equal(error.type, 'invalid_request_error', name);
    assert.ok(error.message.includes(`(at '${pointer || '#'}')`), `${name}: ${error.message}`);
  }
});

test('a stream says the same as a whole answer, and ends in stop', async () => {
  const { schema } = valid.find((entry) => entry.name === 'weather');
  const { body } = await ask(schema, 7);
  const whole = JSON.parse(body).choices[0];
  const stream = await ask(schema, 7, { stream: true });
  const chunks = stream.body.split('\n\n').filter((line) => line.startsWith('data: {')).map((line) => JSON.parse(line.slice(6)));
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join(''), whole.message.content);
  assert.equal(chunks.at(-1).choices[0].finish_reason, whole.finish_reason);
  assert.ok(ajv.compile(schema)(JSON.parse(whole.message.content)));
});

test('every setting of the sampler obeys', async () => {
  const { schema } = valid.find((entry) => entry.name === 'classification');
  const validate = ajv.compile(schema);
  for (const more of [{ temperature: 0 }, { top_k: 1 }, { top_k: 40 }, { top_p: 0.1 }, { min_p: 0.5 },
    { frequency_penalty: 2, presence_penalty: 2 },
    { repetition_penalty: 5 }, { logit_bias: { 0: 100, 1: 100 } }, { logprobs: true, top_logprobs: 3 }, { n: 3 }]) {
    const { status, body } = await ask(schema, 3, more);
    assert.equal(status, 200, body);
    for (const { message, finish_reason: reason } of JSON.parse(body).choices)
      if (reason === 'stop') assert.ok(validate(JSON.parse(message.content)), `${JSON.stringify(more)}: ${message.content}`);
  }
});

test('tools that must be called are called with valid arguments; strict ones too', async () => {
  const { schema } = valid.find((entry) => entry.name === 'person');
  const validate = ajv.compile(schema);
  const tools = [{ type: 'function', function: { name: 'save_person', strict: true, parameters: schema } },
    { type: 'function', function: { name: 'other' } }];
  for (const choice of ['required', { type: 'function', function: { name: 'save_person' } }])
    for (let seed = 0; seed < 5; seed++) {
      const { status, body } = await ask(undefined, seed, { tools, tool_choice: choice, response_format: undefined,
        max_tokens: 250 });
      assert.equal(status, 200, body);
      const { message, finish_reason: reason } = JSON.parse(body).choices[0];
      if (reason === 'length') continue;
      assert.equal(reason, 'tool_calls', body);
      for (const call of message.tool_calls) {
        const given = JSON.parse(call.function.arguments);
        if (call.function.name === 'save_person') assert.ok(validate(given), call.function.arguments);
        else assert.equal(call.function.name, 'other');
      }
      if (choice !== 'required') assert.deepEqual(message.tool_calls.map((call) => call.function.name), ['save_person']);
    }
  const wrong = await ask(undefined, 1, { response_format: undefined, tool_choice: 'required',
    tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'object', not: {} } } }] });
  assert.equal(wrong.status, 400);
  assert.equal(JSON.parse(wrong.body).error.param, 'tools[0].function.parameters');
});
