#!/usr/bin/env python3
"""The files an operator copies that no other test runs: systemd's units, logrotate's configuration, LiteLLM's."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

try:
    import yaml
except ImportError:
    yaml = None

# LiteLLM itself is not to be had everywhere, so its configuration is held against its documentation: these are the settings of
# "All settings" (docs.litellm.ai/docs/proxy/config_settings), with their types, as far as they are of use here; a key that is not
# among them is a spelling mistake, which LiteLLM would pass over in silence.
NUMBER = (int, float)
LITELLM = {
    'model_list': {'model_name': str, 'litellm_params': {'model': str, 'api_base': str, 'api_key': str, 'temperature': NUMBER,
                                                         'timeout': NUMBER,
                                                         'stream_timeout': NUMBER, 'max_parallel_requests': int, 'rpm': int,
                                                         'tpm': int},
                   'model_info': {'mode': str, 'max_tokens': int, 'max_input_tokens': int, 'max_output_tokens': int,
                                  'input_cost_per_token': NUMBER,
                                  'output_cost_per_token': NUMBER, 'base_model': str}},
    'router_settings': {'model_group_alias': dict, 'enable_pre_call_checks': bool, 'context_window_fallbacks': list,
                        'fallbacks': list,
                        'num_retries': int, 'allowed_fails': int, 'cooldown_time': int, 'timeout': NUMBER,
                        'stream_timeout': NUMBER,
                        'routing_strategy': str, 'retry_after': int, 'max_fallbacks': int},
    'litellm_settings': {'request_timeout': int, 'num_retries': int, 'json_logs': bool, 'default_fallbacks': list},
    'general_settings': {'master_key': str},
}


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='quern-files-')
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)

    @unittest.skipUnless(shutil.which('systemd-analyze'), 'systemd-analyze is not here')
    def test_units(self):
        text = (ROOT / 'scripts/systemd/llm-health-check.service').read_text()
        self.assertEqual(text.count('/opt/scripts/llm-health-check.sh'), 1)
        shutil.copy(ROOT / 'scripts/llm-health-check.sh', self.dir)  # the checkout's path may have a space, which units quote
        (self.dir / 'llm-health-check.service').write_text(text.replace('/opt/scripts', str(self.dir)))
        shutil.copy(ROOT / 'scripts/systemd/llm-health-check.timer', self.dir)
        run = subprocess.run(['systemd-analyze', 'verify', '--man=no', self.dir / 'llm-health-check.service',
                             self.dir / 'llm-health-check.timer'],
                             capture_output=True, text=True, timeout=60)
        self.assertEqual((run.returncode, run.stderr), (0, ''))
        run = subprocess.run(['systemd-analyze', 'calendar', '--iterations=2', '*:0/5'], capture_output=True, text=True,
                             timeout=60)
        self.assertEqual(run.returncode, 0, run.stderr)

    @unittest.skipUnless(shutil.which('logrotate', path='/usr/sbin:/sbin'), 'logrotate is not here')
    def test_logrotate(self):
        text = (ROOT / 'config/logrotate/local-llm').read_text()
        logs = re.findall(r'^(/var/log/\S+)', text, re.M)
        script = (ROOT / 'scripts/llm-health-check.sh').read_text()
        self.assertEqual(sorted(logs), sorted(re.findall(r'_LOG-(/var/log/[\w.-]+)\}', script)))
        text = text.replace('/var/log', str(self.dir))
        if os.getuid() != 0:
            text = re.sub(r'create 0640 root adm', 'create 0640', text)
        config = self.dir / 'config'
        config.write_text(text)
        config.chmod(0o644)
        for turn in range(10):
            for log in logs:
                with open(self.dir / Path(log).name, 'a') as file:
                    file.write(f'line {turn}\n')
            subprocess.run(['/usr/sbin/logrotate', '--force', '--state', self.dir / 'state', config], check=True,
                           capture_output=True, timeout=60)
        names = sorted(path.name for path in self.dir.iterdir() if path.name.startswith('llm-health.log'))
        self.assertEqual(names, ['llm-health.log', 'llm-health.log.1'] + [f'llm-health.log.{i}.gz' for i in range(2, 9)])
        self.assertEqual((self.dir / 'llm-health.log.1').read_text(), 'line 9\n')

    def check_keys(self, given, known, where):
        for key, value in given.items():
            self.assertIn(key, known, where)
            if isinstance(known[key], dict):
                self.check_keys(value, known[key], f'{where}.{key}')
            else:
                self.assertIsInstance(value, known[key], f'{where}.{key}')

    @unittest.skipUnless(yaml, 'python3-yaml is not here')
    def test_litellm(self):
        config = yaml.safe_load((ROOT / 'config/routing/litellm.yaml').read_text())
        models = {}
        for entry in config.pop('model_list'):
            self.check_keys(entry, LITELLM['model_list'], 'model_list')
            models[entry['model_name']] = entry
        self.check_keys(config, LITELLM, 'litellm.yaml')
        router = config['router_settings']
        # Whatever is named exists.
        self.assertLessEqual(set(router['model_group_alias'].values()), set(models))
        for setting in ('fallbacks', 'context_window_fallbacks'):
            for rule in router[setting]:
                for group, others in rule.items():
                    self.assertLessEqual({group, *others}, set(models))
        # The rules.
        alias = router['model_group_alias']
        self.assertEqual({alias[name] for name in ('code-review', 'simple-qa', 'log-parsing')}, {'local'})
        self.assertEqual(alias['complex-reasoning'], 'cloud')
        self.assertIs(router['enable_pre_call_checks'], True)
        self.assertEqual(models['local']['model_info']['max_input_tokens'], 2000)
        self.assertIn({'local': ['cloud']}, router['context_window_fallbacks'])
        self.assertEqual(models['local']['litellm_params']['api_base'], 'http://127.0.0.1:8765/v1')


if __name__ == '__main__':
    unittest.main(verbosity=2)
