// Starts a real quern-server for the tests: on a port the system picks, with the shipped model.
import { spawn } from 'node:child_process';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const program = resolve(process.env.QUERN_SERVER ?? join(root, 'build/quern-server'));
export const model = join(root, 'models/quern-tiny-q4_k_m.gguf');

/** Resolves once the server is ready: { port, baseURL, stderr(), signal(name), stop() }. stop() resolves to the exit code. */
export async function startServer(...flags) {
  const child = spawn(program, ['-m', model, '--port', '0', ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  const ended = new Promise((done) => {
    child.once('exit', (code, signal) => done(code ?? signal));
    child.once('error', (error) => { log += error.message; done(error.code); });
  });
  const port = await new Promise((done, fail) => {
    child.stderr.setEncoding('utf8');
    child.stderr.on('data', (text) => {
      log += text;
      const line = /listening.*?:(\d+)\b/.exec(log);
      if (line) done(Number(line[1]));
    });
    ended.then((code) => fail(new Error(`${program} ended (${code}) before it listened:\n${log}`)));
  });
  for (const deadline = Date.now() + 60_000; ;) {
    if ((await fetch(`http://127.0.0.1:${port}/health`)).status === 200) break;
    if (Date.now() > deadline) throw new Error(`not ready within a minute:\n${log}`);
    await new Promise((done) => setTimeout(done, 50));
  }
  return {
    port,
    baseURL: `http://127.0.0.1:${port}/v1`,
    stderr: () => log,
    signal: (name) => child.kill(name),
    async stop() {
      child.kill('SIGTERM');
      return ended;
    },
  };
}
