#!/usr/bin/env python3
"""One window for each model: models.txt, config/openclaw*.json, the unit, its limits and what the guides say, held against
each other and against the memory that quern-server really reserves.

QUERN_SERVER names the program (default: build-test/quern-server); make-model is beside it."""
import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
from quern_process import MODEL, PROGRAM, ROOT, Quern  # noqa: E402
from sandbox import Unit  # noqa: E402

OFFICIAL = ['qwen2.5-0.5b-instruct', 'qwen2.5-1.5b-instruct', 'qwen2.5-3b-instruct']
# Layers, heads of keys, their width: of the models' own metadata.
SHAPES = {'qwen2.5-0.5b-instruct': (24, 2, 64), 'qwen2.5-1.5b-instruct': (28, 2, 128), 'qwen2.5-3b-instruct': (36, 2, 128),
          'quern-tiny': (8, 2, 64)}
SMALLEST_WINDOW, TRAINED_WINDOW = 4000, 32768  # OpenClaw's own limit for a turn of an agent; Qwen2.5's
FIRST_TURN = 12000  # tokens, about: what an agent of OpenClaw begins with


def records():
    found = {}
    for block in (ROOT / 'models.txt').read_text().split('\n\n'):
        record = dict(re.findall(r'^(\w+):\s*(.*?)\s*$', block, re.M))
        if 'name' in record:
            found[record['name']] = record
    return found


def memory(record, context):
    """What the installer counts with, in bytes."""
    return int(record['ram_mb']) * 10**6 + (context - 2048) * int(record['token_bytes'])


class Context(unittest.TestCase):
    def setUp(self):
        self.records = records()
        self.unit = Unit(ROOT / 'scripts/systemd/local-llm.service')
        self.memory_high = int(self.unit.one('MemoryHigh').removesuffix('M')) << 20

    def test_windows_fit_the_memory(self):
        for name in OFFICIAL:
            window = int(self.records[name]['context'])
            self.assertTrue(SMALLEST_WINDOW < window <= TRAINED_WINDOW, name)
            self.assertLess(memory(self.records[name], window), self.memory_high, name)
            # And it is no smaller than need be.
            self.assertTrue(window == TRAINED_WINDOW or memory(self.records[name], 2 * window) > self.memory_high, name)

    def test_openclaw_is_told_the_same(self):
        for path in sorted((ROOT / 'config').glob('openclaw*.json')):
            config = json.loads(path.read_text())
            models = {m['id']: m for m in config['models']['providers']['local-llm']['models']}
            self.assertEqual(list(models), OFFICIAL)
            for name, model in models.items():
                self.assertEqual(model['contextWindow'], int(self.records[name]['context']), f'{path} {name}')
                self.assertLess(model['maxTokens'], model['contextWindow'])
            # The model that agents fall back on takes their first turn.
            model = config['agents']['defaults']['model']
            for name in (model['primary'], *model['fallbacks']):
                if name.startswith('local-llm/'):
                    self.assertGreater(models[name.removeprefix('local-llm/')]['contextWindow'], FIRST_TURN + 1024)

    def test_the_unit_alone_serves_it_too(self):
        variables = dict(v.strip('"').split('=', 1) for v in self.unit.values['Environment'])
        record = self.records[variables['LOCAL_LLM_ALIAS']]
        self.assertEqual(variables['LOCAL_LLM_MODEL'], '/opt/llm-models/' + record['file'])
        self.assertEqual(variables['LOCAL_LLM_CTX_SIZE'], record['context'])

    def test_the_guides_say_so(self):
        text = (ROOT / 'config/ANLEITUNG.md').read_text()
        readme = (ROOT / 'README.md').read_text()
        for name in OFFICIAL:
            window = int(self.records[name]['context'])
            gigabytes = f'{memory(self.records[name], window) / 1e9:.1f} GB'
            self.assertTrue(re.search(rf'\| {name}[^|]* \| {window} \| {gigabytes.replace(".", ",")} \|', text), name)
            size = name.removeprefix('qwen2.5-').removesuffix('-instruct').upper()
            self.assertTrue(re.search(rf'\b{size}: {window} tokens \({gigabytes}\)', readme), name)

    def test_a_token_takes_what_models_txt_says(self):
        """The reserved memory of two servers that differ in their context only."""
        with tempfile.TemporaryDirectory(prefix='quern-context-') as folder:
            for name, (layers, heads, width) in SHAPES.items():
                model = Path(folder) / f'{name}.gguf'
                subprocess.run([Path(PROGRAM).parent / 'make-model', '--layers', str(layers), '--embd', '256', '--heads',
                                str(2 * heads), '--kv-heads', str(heads),
                                '--head-dim', str(width), '--ff', '256', '--vocab', '8192', '--ctx', '32768', '--tied',
                                '--tokenizer', MODEL, model],
                               check=True, capture_output=True)
                sizes = []
                for context in (2048, 32768):
                    server = Quern('--ctx-size', str(context), '--threads', '1', model=model)
                    status = Path(f'/proc/{server.process.pid}/status').read_text()
                    sizes.append(int(re.search(r'VmSize:\s*(\d+) kB', status)[1]) * 1024)
                    self.assertEqual(server.stop(), 0)
                told = int(self.records[name]['token_bytes'])
                self.assertTrue(told <= (sizes[1] - sizes[0]) / 30720 < 1.05 * told, (name, told, (sizes[1] - sizes[0]) / 30720))


if __name__ == '__main__':
    unittest.main(verbosity=2)
