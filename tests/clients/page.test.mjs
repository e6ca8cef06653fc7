// The chat page in a real browser (Debian's chromium, headless), against a real server. CHROMIUM names another browser.
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { startServer } from './server.mjs';

const browserPath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const { chromium } = await import('playwright-core').catch(() => ({}));
const skip = !chromium ? 'playwright-core is not installed' : !existsSync(browserPath) ? `there is no ${browserPath}` : false;
const settings = { skip, timeout: 120_000 };

let server, browser, profile, page, problems, requests;
const origin = () => `http://127.0.0.1:${server.port}`;

async function startSlow(...flags) {
  process.env.QUERN_CPU = 'scalar';
  try {
    return await startServer('-t', '1', ...flags);
  } finally {
    delete process.env.QUERN_CPU;
  }
}

// A page of its own, which notes every request and every complaint.
async function open(options = {}, base = origin()) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const opened = await context.newPage();
  opened.setDefaultTimeout(30_000);
  opened.on('request', (request) => requests.push(request.url()));
  opened.on('pageerror', (error) => problems.push(String(error)));
  opened.on('console', (message) => {
    // A status of 4xx or 5xx is told on the console by the browser itself; what the page makes of it is tested below.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) problems.push(message.text());
  });
  await opened.goto(base + '/');
  return opened;
}
const ready = (p) => p.locator('#state[data-is=ready]').waitFor();
const answers = (p) => p.locator('article.assistant .body');
const done = (p) => p.locator('#log[aria-busy=false]').waitFor();
const say = async (p, text) => { await p.locator('#text').fill(text); await p.keyboard.press('Enter'); };

before(async () => {
  if (skip) return;
  // One thread without vector instructions: an answer that can be watched, and stopped.
  server = await startSlow('--alias', 'quern-page', '--metrics');
  profile = mkdtempSync(join(tmpdir(), 'quern-page-'));
  browser = await chromium.launch({ executablePath: browserPath, env: { ...process.env, HOME: profile },
    args: ['--no-sandbox', '--disable-gpu',
    '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
});
after(async () => {
  if (skip) return;
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
  assert.equal(await server.stop(), 0, server.stderr());
});
beforeEach(async () => {
  if (skip) return;
  problems = [];
  requests = [];
});
afterEach(async () => {
  if (skip) return;
  assert.deepEqual(problems, [], 'the page and its policy agree');
  for (const url of requests) {
    assert.ok(url.startsWith('http://127.0.0.1:') || url.startsWith('data:'), `${url} leaves the origin`);
  }
  await Promise.all(browser.contexts().map((context) => context.close()));
});

test('Enter sends, and the answer comes with its speed', settings, async () => {
  page = await open();
  await ready(page);
  assert.equal(await page.locator('#state').textContent(), 'quern-page');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'text', 'one can write at once');
  await page.keyboard.type('Say OK');
  await page.keyboard.press('Enter');
  await done(page);
  assert.equal(await answers(page).textContent(), 'OK');
  assert.equal(await page.locator('article.user .body').textContent(), 'Say OK');
  const facts = await page.locator('article.assistant .facts').textContent();
  assert.match(facts, /^1 token · [\d.,]+ tokens\/s · prompt \d+ tokens(?: \(\d+ cached\))? · context \d+% full$/);
  assert.ok(requests.every((url) => url.startsWith(origin() + '/') || url.startsWith('data:')), String(requests));
  assert.ok(requests.includes(`${origin()}/v1/chat/completions`));
});

test('an answer appears piece by piece, and Stop ends it', settings, async () => {
  page = await open();
  await ready(page);
  await say(page, 'Tell me a story about a cat and a ball.');
  const length = async () => (await answers(page).textContent()).length;
  await page.waitForFunction(() => document.querySelector('article.assistant .body').textContent.length > 0);
  const first = await length();
  await page.waitForFunction((n) => document.querySelector('article.assistant .body').textContent.length > n, first);
  await page.locator('#stop').click();
  await done(page);
  const stopped = await length();
  assert.match(await page.locator('article.assistant .facts').textContent(), /^stopped · about \d+ tokens/);
  assert.equal(await page.locator('#notice').isVisible(), false, 'that is no error');
  // The server stops too: nothing is being computed any more, though the story would have gone on.
  for (const deadline = Date.now() + 10_000; ;) {
    if (/^quern:requests_processing 0$/m.test(await (await fetch(origin() + '/metrics')).text())) break;
    assert.ok(Date.now() < deadline, 'the generation goes on');
  }
  assert.equal(await length(), stopped);
  // And the conversation goes on.
  await say(page, 'Say OK');
  await page.locator('article.assistant').nth(1).locator('.facts', { hasText: /prompt \d+ tokens \(\d+ cached\)/ }).waitFor();
  assert.equal(await page.locator('article').count(), 4);
});

test('everything can be done with the keyboard', settings, async () => {
  page = await open();
  await ready(page);
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
  await page.keyboard.type('one');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('two');
  assert.equal(await page.locator('#text').inputValue(), 'one\ntwo');
  await page.locator('#text').fill('');
  // Backwards through the page, as it is laid out.
  const order = [];
  for (let i = 0; i < 6; i++) {
    await page.keyboard.press('Shift+Tab');
    order.push(await focused());
  }
  assert.deepEqual(order, ['Write a haiku about rain.', 'What is a quern?', 'Tell me a story about a cat and a ball.', 'log',
    'open-settings', 'new']);
  // Settings: opened, filled in and saved without a mouse; the focus comes back.
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  assert.equal(await focused(), 'system');
  await page.keyboard.type('You are a helpful assistant.');
  await page.keyboard.press('Tab');
  await page.keyboard.type('0');
  await page.keyboard.press('Tab');
  await page.keyboard.type('7');
  const asked = page.waitForRequest((request) => request.method() === 'POST');
  await page.keyboard.press('Enter');
  assert.equal(await page.locator('#settings').isVisible(), false);
  assert.equal(await focused(), 'open-settings');
  await page.locator('#text').focus();
  await page.keyboard.type('Tell me a story about a cat and a ball.');
  await page.keyboard.press('Enter');
  const body = (await asked).postDataJSON();
  assert.deepEqual(body.messages[0], { role: 'system', content: 'You are a helpful assistant.' });
  assert.equal(body.temperature, 0);
  assert.equal(body.max_tokens, 7);
  await done(page);
  assert.match(await page.locator('article.assistant .facts').textContent(), /^cut short by its limit · 7 tokens/);
  // Escape stops an answer, and closes the settings without saving.
  await page.locator('#open-settings').focus();
  await page.keyboard.press('Enter');
  await page.locator('#max-tokens').fill('');
  await page.keyboard.press('Enter');
  await say(page, 'Tell me a story about a dog.');
  await page.waitForFunction(() => document.querySelectorAll('article.assistant .body')[1]?.textContent.length > 0);
  await page.keyboard.press('Escape');
  await done(page);
  assert.match(await page.locator('article.assistant .facts').nth(1).textContent(), /^stopped/);
  assert.equal(await focused(), 'text');
});

test('what is written stays text: no markup, code in blocks of its own', settings, async () => {
  page = await open();
  await ready(page);
  const code = 'int a[3] = {1, 2, 3};\n\n  <img src=x onerror="document.title=1">';
  await say(page, `Look <img src=x onerror="document.title='bad'"> <b>here</b>\n\nand here:\n\`\`\`c\n${code}\n\`\`\`\nWell?`);
  await page.keyboard.press('Escape');
  await done(page);
  const mine = page.locator('article.user .body');
  assert.equal(await mine.locator('img, b').count(), 0);
  assert.deepEqual(await mine.locator('p').allTextContents(),
    [`Look <img src=x onerror="document.title='bad'"> <b>here</b>`, 'and here:', 'Well?']);
  assert.equal(await mine.locator('pre code').textContent(), code);
  assert.equal(await mine.locator('figcaption span').textContent(), 'c');
  assert.equal(await page.title(), 'quern-page · quern');
});

test('a message can be copied', settings, async () => {
  page = await open({ permissions: ['clipboard-read', 'clipboard-write'] });
  await ready(page);
  await say(page, 'Say OK');
  await done(page);
  await page.getByRole('button', { name: 'Copy the answer' }).click();
  await page.getByText('Copied').waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'OK');
});

test('a conversation that is too long is explained with both numbers, and not lost', settings, async () => {
  page = await open();
  await ready(page);
  const long = 'word '.repeat(1500);
  await say(page, long);
  await page.locator('#notice').waitFor();
  assert.match(await page.locator('#notice p').textContent(), /has \d,\d{3} tokens.*can hold 1,024/);
  assert.equal(await page.locator('#text').inputValue(), long, 'it is back where it can be changed');
  assert.equal(await page.locator('article').count(), 0);
  await say(page, 'Say OK');
  await done(page);
  assert.equal(await answers(page).textContent(), 'OK');
  assert.equal(await page.locator('#notice').isVisible(), false);
});

test('New chat forgets the conversation, even while it is being answered', settings, async () => {
  page = await open();
  await ready(page);
  await say(page, 'Tell me a story about a cat and a ball.');
  await page.waitForFunction(() => document.querySelector('article.assistant .body').textContent.length > 0);
  await page.locator('#new').click();
  assert.equal(await page.locator('article').count(), 0);
  assert.equal(await page.locator('#hello').isVisible(), true);
  const asked = page.waitForRequest((request) => request.method() === 'POST');
  await say(page, 'Say OK');
  assert.deepEqual((await asked).postDataJSON().messages, [{ role: 'user', content: 'Say OK' }]);
  await done(page);
  assert.equal(await answers(page).textContent(), 'OK');
});

test('light and dark follow the system, and text can be read in both', settings, async () => {
  const grounds = [];
  for (const colorScheme of ['light', 'dark']) {
    page = await open({ colorScheme });
    await ready(page);
    await say(page, 'Say OK');
    await done(page);
    // The contrast of every text that is seen with what is behind it (WCAG 2.1, 1.4.3): at least 4.5.
    const poor = await page.evaluate(() => {
      const parse = (color) => color.match(/[\d.]+/g).map(Number);
      const luminance = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const behind = (e) => {
        for (; e; e = e.parentElement) {
          const color = parse(getComputedStyle(e).backgroundColor);
          if (color.length === 3 || color[3] === 1) return color;
        }
        return [255, 255, 255];
      };
      const found = [];
      for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !e.checkVisibility() || e.closest('script, style, .unseen') || e.disabled) continue;
        const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(behind(e))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) found.push(`${e.textContent.trim()}: ${ratio.toFixed(2)}`);
      }
      return found;
    });
    assert.deepEqual(poor, []);
    grounds.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
  }
  assert.notEqual(grounds[0], grounds[1]);
});

test('it fits a phone', settings, async () => {
  page = await open({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  await ready(page);
  await page.locator('#hello button').first().tap();
  await page.waitForFunction(() => document.querySelector('article.assistant .body')?.textContent.length > 0);
  await page.locator('#stop').tap();
  await done(page);
  const { wide, seen } = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth,
    seen: ['new', 'open-settings', 'text', 'send'].every((id) => {
      const box = document.getElementById(id).getBoundingClientRect();
      return box.left >= 0 && box.right <= innerWidth && box.bottom <= innerHeight && box.height >= 40;
    }),
  }));
  assert.ok(wide <= 360, `${wide} pixels wide`);
  assert.ok(seen, 'every control is within reach');
});

test('every control has a name', settings, async () => {
  page = await open();
  await ready(page);
  await page.locator('#open-settings').click();
  const nameless = await page.evaluate(() => [...document.querySelectorAll('input, textarea, button')]
    .filter((e) => !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label'))).map((e) => e.outerHTML));
  assert.deepEqual(nameless, []);
});

test('a server with a key is asked with it', settings, async () => {
  const guarded = await startServer('--api-key', 'open-sesame');
  try {
    page = await open({}, `http://127.0.0.1:${guarded.port}`);
    await page.locator('#ask-key').waitFor();
    await page.locator('#key-now').fill('wrong');
    await page.keyboard.press('Enter');
    await page.getByText('does not accept this API key').waitFor();
    await page.locator('#key-now').fill('open-sesame');
    await page.keyboard.press('Enter');
    await ready(page);
    await say(page, 'Say OK');
    await done(page);
    assert.equal(await answers(page).textContent(), 'OK');
    assert.ok(!guarded.stderr().includes('sesame'), 'the key is not in the log');
  } finally {
    assert.equal(await guarded.stop(), 0);
  }
});

test('a server that goes away is missed, and found again', settings, async () => {
  let other = await startServer();
  const { port } = other;
  page = await open({}, `http://127.0.0.1:${port}`);
  await ready(page);
  assert.equal(await other.stop(), 0);
  await say(page, 'Say OK');
  await page.getByText('The server cannot be reached').waitFor();
  assert.equal(await page.locator('article.user .body').textContent(), 'Say OK', 'the message waits');
  other = await startServer('--port', String(port));
  try {
    await page.getByText('The server is back').waitFor();
    await page.getByRole('button', { name: 'Try again' }).click();
    await done(page);
    assert.equal(await answers(page).textContent(), 'OK');
  } finally {
    assert.equal(await other.stop(), 0);
  }
});

test('what was said stays when the server dies in the middle', settings, async () => {
  const other = await startSlow();
  page = await open({}, `http://127.0.0.1:${other.port}`);
  await ready(page);
  await say(page, 'Tell me a story about a cat and a ball.');
  await page.waitForFunction(() => document.querySelector('article.assistant .body').textContent.length > 0);
  other.signal('SIGKILL');
  await page.getByText('ended before the answer was complete').waitFor();
  assert.ok((await answers(page).textContent()).length > 0);
  assert.equal(await other.stop(), 'SIGKILL');
});

test('a busy server can be asked again', settings, async () => {
  const busy = await startSlow('-np', '1', '--queue', '1', '--metrics');
  const stopper = new AbortController();
  try {
    const base = `http://127.0.0.1:${busy.port}`;
    page = await open({}, base);
    await ready(page);
    const story = () => fetch(base + '/v1/chat/completions', {
      method: 'POST', signal: stopper.signal, headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages: [{ role: 'user', content: 'Tell me a story.' }], stream: true }),
    });
    const metric = async (name) => {
      const page = await (await fetch(base + '/metrics')).text();
      return Number(new RegExp(`^quern:${name} (.*)$`, 'm').exec(page)[1]);
    };
    await story();
    while (await metric('requests_processing') !== 1) ;
    await story();
    while (await metric('requests_deferred') !== 1) ;
    await say(page, 'Say OK');
    await page.getByText('The server is busy').waitFor();
    stopper.abort();
    while (await metric('requests_processing') !== 0) ;
    await page.getByRole('button', { name: 'Try again' }).click();
    await done(page);
    assert.equal(await answers(page).textContent(), 'OK');
    assert.equal(await page.locator('article.user').count(), 1);
  } finally {
    stopper.abort();
    assert.equal(await busy.stop(), 0);
  }
});

test('a server that is still loading is waited for', settings, async () => {
  // A gate that answers as a loading server does, until it is opened; then it lets through.
  let loading = true;
  const gate = http.createServer((request, response) => {
    if (loading && request.url !== '/') {
      response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '1' })
        .end(
          '{"error":{"message":"The model is still being loaded.","type":"server_error","param":null,"code":"model_loading"}}');
      return;
    }
    request.pipe(http.request(
      { port: server.port, host: '127.0.0.1', method: request.method, path: request.url, headers: request.headers },
      (answer) => { response.writeHead(answer.statusCode, answer.headers); answer.pipe(response); }));
  });
  await new Promise((open) => gate.listen(0, '127.0.0.1', open));
  try {
    page = await open({}, `http://127.0.0.1:${gate.address().port}`);
    await page.locator('#state', { hasText: 'loading the model' }).waitFor();
    await say(page, 'Say OK');
    await page.getByText('Your message is sent as soon as it is ready').waitFor();
    loading = false;
    await done(page);
    await ready(page);
    assert.equal(await answers(page).textContent(), 'OK');
    assert.equal(await page.locator('#notice').isVisible(), false);
  } finally {
    gate.close();
    gate.closeAllConnections();
  }
});
