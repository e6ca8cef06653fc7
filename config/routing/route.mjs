// Which model gets a task, and what happens when that one fails. No dependencies; Node.js 18 or later.
//
//   import { createRouter } from './route.mjs';
//   const router = createRouter({
//     local: { baseURL: 'http://127.0.0.1:8765/v1', model: 'qwen2.5-1.5b-instruct' },
//     cloud: { baseURL: 'https://api.openai.com/v1', model: 'gpt-5', apiKey: process.env.OPENAI_API_KEY },
//   });
//   const { reply, target, reason } = await router.chat({ type: 'log-parsing' }, { messages });
//   for await (const chunk of router.stream({ priority: 'high' }, { messages })) ...
//
// A task is { type, priority, tokens }, all optional; tokens counts prompt and expected answer, and is estimated without it.
// Local: code-review, simple-qa, log-parsing, and whatever is under 500 tokens. Cloud: high priority, complex-reasoning, over
// 2000 tokens, local down, and what no rule names; these are stronger. When the chosen one cannot be reached, dies or is
// overloaded before anything was handed on, the other one gets the same request.

const LOCAL_TYPES = new Set(['code-review', 'simple-qa', 'log-parsing']), SMALL = 500, LARGE = 2000; // tokens

/** A rough count: 3 bytes a token errs on the large side for English, German and code. */
export function estimateTokens({ messages = [], max_tokens, max_completion_tokens }) {
  const text = messages.map(({ content }) =>
    typeof content === 'string' ? content : (content ?? []).map((part) => part.text ?? '').join('')).join('\n');
  return Math.ceil(Buffer.byteLength(text) / 3) + 4 * messages.length + (max_completion_tokens ?? max_tokens ?? 0);
}

/** { target: 'local' or 'cloud', reason } */
export function decide({ type, priority, tokens }, localIsUp = true) {
  if (!localIsUp) return { target: 'cloud', reason: 'local is down' };
  if (priority === 'high') return { target: 'cloud', reason: 'high priority' };
  if (type === 'complex-reasoning') return { target: 'cloud', reason: type };
  if (tokens > LARGE) return { target: 'cloud', reason: `over ${LARGE} tokens` };
  if (LOCAL_TYPES.has(type)) return { target: 'local', reason: type };
  if (tokens < SMALL) return { target: 'local', reason: `under ${SMALL} tokens` };
  return { target: 'cloud', reason: 'no rule for local' };
}

class Failover extends Error {} // the target's trouble, not the request's: the other one may do better
const TRY_OTHER = new Set([401, 403, 404, 408, 409, 425, 429]); // and all of 5xx

// target.timeoutMs: to the first chunk of a stream, to the whole answer otherwise.
async function call(target, request, { stream, signal }) {
  const timer = new AbortController();
  const clock = setTimeout(() => timer.abort(new Failover(`no answer within ${target.timeoutMs} ms`)), target.timeoutMs);
  const stop = () => timer.abort(signal.reason);
  signal?.throwIfAborted();
  signal?.addEventListener('abort', stop, { once: true });
  const done = () => { clearTimeout(clock); signal?.removeEventListener('abort', stop); };
  try {
    const answer = await fetch(`${target.baseURL}/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(target.apiKey && { authorization: `Bearer ${target.apiKey}` }) },
      body: JSON.stringify({ ...request, model: target.model, stream }),
      signal: timer.signal,
    });
    if (!answer.ok) {
      const text = await answer.text();
      const message = `HTTP ${answer.status}: ${text.slice(0, 500)}`;
      if (answer.status >= 500 || TRY_OTHER.has(answer.status) || text.includes('context_length_exceeded')) {
        throw new Failover(message);
      }
      throw Object.assign(new Error(message), { status: answer.status });
    }
    if (stream) return { chunks: parse(answer.body, done, () => clearTimeout(clock)) };
    const reply = await answer.json();
    done();
    if (!reply?.choices?.[0]?.message) throw new Failover('an answer without a message');
    return { reply };
  } catch (error) {
    done();
    if (signal?.aborted) throw signal.reason;
    // What fetch throws is a connection that broke, and a SyntaxError is an answer that is no JSON.
    throw error.status ? error : new Failover(error.message, { cause: error });
  }
}

async function* parse(body, done, onFirst) {
  let rest = '';
  const decoder = new TextDecoder();
  try {
    for await (const bytes of body) {
      rest += decoder.decode(bytes, { stream: true });
      const lines = rest.split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith('data:')) continue;
        const data = line.slice(5).trim();
        if (data === '[DONE]') return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        onFirst();
        yield chunk;
      }
    }
  } finally { done(); }
  throw new Error('the stream broke off');
}

export function createRouter({ local, cloud, log = () => {}, healthMs = 2000, freshMs = 5000 }) {
  const targets = { local: { timeoutMs: 30_000, ...local }, cloud: { timeoutMs: 120_000, ...cloud } };
  const healthURL = local.healthURL ?? new URL('/health', local.baseURL).href;
  let up = true, looked = -Infinity;

  async function localIsUp() {
    if (performance.now() - looked < freshMs) return up;
    up = await fetch(healthURL, { signal: AbortSignal.timeout(healthMs) })
      .then((answer) => answer.body.cancel().then(() => answer.ok), () => false);
    looked = performance.now();
    return up;
  }

  async function choose(task, request) {
    const known = { ...task, tokens: task.tokens ?? estimateTokens(request) };
    const wanted = decide(known); // no question to local when it would not get the task anyway
    const { target, reason } = wanted.target === 'local' ? decide(known, await localIsUp()) : wanted;
    return [{ name: target, reason }, { name: target === 'local' ? 'cloud' : 'local', reason: `${target} failed` }];
  }

  function failed({ name, reason }, error, isLast) {
    if (name === 'local') looked = -Infinity; // ask again before the next task
    log(`${name} (${reason}): ${error.message}`);
    if (isLast || !(error instanceof Failover)) throw error;
  }

  async function chat(task, request, { signal } = {}) {
    const plan = await choose(task, request);
    for (const [i, { name, reason }] of plan.entries()) {
      try {
        return { ...await call(targets[name], request, { stream: false, signal }), target: name, reason };
      } catch (error) { failed({ name, reason }, error, i === 1 || signal?.aborted); }
    }
  }

  /** The chunks as they come. Once one with text has been handed on, a failure is the caller's: an answer cannot be mended. */
  async function* stream(task, request, { signal } = {}) {
    const plan = await choose(task, request);
    for (const [i, { name, reason }] of plan.entries()) {
      let held = [], started = false;
      try {
        for await (const chunk of (await call(targets[name], request, { stream: true, signal })).chunks) {
          held.push({ ...chunk, target: name });
          const delta = chunk.choices?.[0]?.delta;
          started ||= Boolean(delta?.content || delta?.tool_calls || chunk.choices?.[0]?.finish_reason);
          if (started) { yield* held; held = []; }
        }
        return yield* held;
      } catch (error) {
        failed({ name, reason }, error.status ? error : new Failover(error.message, { cause: error }),
          i === 1 || started || signal?.aborted);
      }
    }
  }

  return { chat, stream, localIsUp };
}
