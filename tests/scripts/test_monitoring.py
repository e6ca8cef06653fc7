#!/usr/bin/env python3
"""config/prometheus and config/grafana: the alert rules under promtool, and every metric that a rule or a panel names against
what a real quern-server exports. PROMTOOL names the program; without it the tests that need it are skipped."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
from quern_process import ROOT, Quern  # noqa: E402

PROMETHEUS = ROOT / 'config' / 'prometheus'
PROMTOOL = os.environ.get('PROMTOOL') or shutil.which('promtool')
NOT_OURS = {'up', 'node_vmstat_oom_kill'}  # Prometheus' own, and the node exporter's
WORDS = {'by', 'without', 'on', 'ignoring', 'sum', 'rate', 'increase', 'changes', 'histogram_quantile', 'label_values', 'le'}


def metrics_of(expression):
    """The metrics that a PromQL expression names: identifiers that are no functions, labels or modifiers."""
    bare = re.sub(r'"(\\.|[^"\\])*"', '', expression)
    bare = re.sub(r'\{[^}]*\}|\[[^\]]*\]', ' ', bare)                         # selectors, ranges
    bare = re.sub(r'\b(by|without|on|ignoring)\s*\([^)]*\)', ' ', bare)       # lists of labels
    bare = re.sub(r'(label_values\([^,]*),[^)]*\)', r'\1)', bare)
    return set(re.findall(r'(?<![\w.:])[a-zA-Z_:][\w:]*', bare)) - WORDS


def labels_of(expression):
    """(metric, label) for every label in a selector."""
    found = set()
    for metric, selector in re.findall(r'([\w:]+)\{([^}]*)\}', expression):
        found |= {(metric, label) for label in re.findall(r'(\w+)\s*[=!]', re.sub(r'"[^"]*"', '', selector))}
    return found


class Monitoring(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        server = Quern('--metrics')
        try:
            server.post('/v1/chat/completions', {'messages': [{'role': 'user', 'content': 'Say OK'}], 'max_tokens': 5})
            cls.page = server.text('/metrics')
        finally:
            code = server.stop()
        assert code == 0, server.log
        cls.labels = {}
        for line in cls.page.splitlines():
            if line and not line.startswith('#'):
                name, inner = re.match(r'([\w:]+)(?:\{(.*)\})? ', line).groups()
                cls.labels.setdefault(name, set()).update(re.findall(r'(\w+)="', inner or ''))
        cls.rules = (PROMETHEUS / 'local-llm.rules.yml').read_text()
        cls.recorded = set(re.findall(r'record:\s*(\S+)', cls.rules))
        cls.dashboard = json.loads((ROOT / 'config' / 'grafana' / 'local-llm.json').read_text())

    def check(self, expression, where):
        names = metrics_of(expression)
        self.assertTrue(names, f'{where}: {expression}')
        for name in names - NOT_OURS - self.recorded:
            self.assertIn(name, self.labels, f'{where}: quern-server does not export {name}')
        for name, label in labels_of(expression):
            if name not in NOT_OURS | self.recorded:
                self.assertIn(label, self.labels[name] | {'job', 'instance'}, f'{where}: {name} has no label {label}')

    def test_the_check_itself(self):
        self.assertEqual(
            metrics_of('histogram_quantile(0.9, sum by (le, x) (rate(a:b_bucket{job="up", le!="c"}[5m]))) / (d > 0)'),
            {'a:b_bucket', 'd'})
        self.assertEqual(labels_of('rate(a:b{job="$x", le!="c"}[5m])'), {('a:b', 'job'), ('a:b', 'le')})
        with self.assertRaises(AssertionError):
            self.check('rate(quern:no_such_total[5m])', 'here')
        with self.assertRaises(AssertionError):
            self.check('quern:http_requests_total{code="503"}', 'here')

    def test_rules_name_what_is_exported(self):
        expressions = re.findall(r'^ +expr: (?:>-\n)?((?:.|\n {10,})*)', self.rules, re.M)
        self.assertEqual(len(expressions), len(re.findall(r'^ +expr:', self.rules, re.M)))
        self.assertGreaterEqual(len(expressions), 8)
        for expression in expressions:
            self.check(expression, 'local-llm.rules.yml')

    def test_every_panel_of_the_dashboard_has_data(self):
        panels = self.dashboard['panels']
        self.assertEqual(len({panel['id'] for panel in panels}), len(panels))
        occupied = set()
        queries = 0
        for panel in panels:
            for target in panel['targets']:
                self.check(target['expr'], panel['title'])
                queries += 1
            place = panel['gridPos']
            cells = {(x, y) for x in range(place['x'], place['x'] + place['w'])
                     for y in range(place['y'], place['y'] + place['h'])}
            self.assertTrue(place['x'] + place['w'] <= 24 and not cells & occupied, panel['title'])
            occupied |= cells
        self.assertGreater(queries, 20)
        for variable in self.dashboard['templating']['list']:
            if variable['type'] == 'query':
                self.check(variable['query']['query'], variable['name'])

    @unittest.skipUnless(PROMTOOL, 'promtool is not here (Debian package prometheus)')
    def test_promtool(self):
        def promtool(*arguments):
            run = subprocess.run([PROMTOOL, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=120)
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        promtool('check', 'config', 'prometheus.yml')
        promtool('check', 'rules', 'local-llm.rules.yml')
        promtool('test', 'rules', 'local-llm.tests.yml')
        # The dashboard's queries are PromQL: as rules, with Grafana's variables filled in, they must parse.
        rules = ''.join(f'  - record: x\n    expr: {json.dumps(target["expr"].replace("$__rate_interval", "1m"))}\n'
                        for panel in self.dashboard['panels'] for target in panel['targets'])
        with tempfile.NamedTemporaryFile('w', suffix='.yml') as file:
            file.write('groups:\n- name: g\n  rules:\n' + rules)
            file.flush()
            promtool('check', 'rules', '--lint=none', file.name)


if __name__ == '__main__':
    unittest.main(verbosity=2)
