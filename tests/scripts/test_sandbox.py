#!/usr/bin/env python3
"""quern-server under the restrictions of scripts/systemd/local-llm.service: what the sandbox forbids is forbidden, and what
quern does works.

QUERN_SERVER and SANDBOX_PROBE name the two programs (default: those in build-test/). Without bubblewrap, systemd-analyze or
user namespaces it is skipped."""
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True
from sandbox import Sandbox, Unit  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / 'scripts/systemd/local-llm.service'
MODEL = 'quern-tiny-q4_k_m.gguf'
SERVER = Path(os.environ.get('QUERN_SERVER', ROOT / 'build-test/quern-server')).resolve()
PROBE = Path(os.environ.get('SANDBOX_PROBE', ROOT / 'build-test/sandbox-probe')).resolve()


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def limits():
    """LimitMEMLOCK=, LimitNOFILE=, LimitCORE= of the unit; above what this user may have, whatever that is."""
    for which, value in ((resource.RLIMIT_MEMLOCK, 3 << 30), (resource.RLIMIT_NOFILE, 4096), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY or os.geteuid() == 0 else min(value, hard)
        resource.setrlimit(which, (value, value))


def missing():
    for tool in ('bwrap', 'systemd-analyze', 'cc'):
        if not shutil.which(tool):
            return f'{tool} is not installed'
    user = {'user': 61184, 'group': 61184, 'extra_groups': []} if os.geteuid() == 0 else {}
    trial = subprocess.run(['bwrap', '--unshare-user', '--ro-bind', '/', '/', '--proc', '/proc', '--cap-drop', 'ALL',
                            '/bin/true'], **user, capture_output=True, text=True, cwd='/')
    return f'bwrap cannot make user namespaces here: {trial.stderr.strip()}' if trial.returncode else None


class SandboxTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = missing()
        if reason:
            raise unittest.SkipTest(reason)
        cls.unit = Unit(UNIT)
        folder = tempfile.TemporaryDirectory(prefix='quern-sandbox-')
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        os.chmod(cls.folder, 0o755)
        for name in ('quern', 'models', 'cache', 'run'):
            (cls.folder / name).mkdir()
        shutil.copy(SERVER, cls.folder / 'quern/quern-server')
        shutil.copy(PROBE, cls.folder / 'quern/sandbox-probe')
        shutil.copy(ROOT / 'models' / MODEL, cls.folder / 'models')
        os.chmod(cls.folder / 'models' / MODEL, 0o666)  # so that only the sandbox forbids to write
        cls.cache = '/var/cache/' + cls.unit.one('CacheDirectory')
        cls.sandbox = Sandbox(cls.unit, {'/opt/quern': (cls.folder / 'quern', False),
                                         '/opt/llm-models': (cls.folder / 'models', False),
                                         cls.cache: (cls.folder / 'cache', True), '/run/manager': (cls.folder / 'run', True)})
        for file in cls.sandbox.files:
            cls.addClassCleanup(file.close)
        # Not as root even outside of its user namespace, if there is a choice.
        cls.user = {'user': 61184, 'group': 61184, 'extra_groups': []} if os.geteuid() == 0 else {}
        if cls.user:
            for name in ('cache', 'run'):
                os.chown(cls.folder / name, 61184, 61184)

    def start(self, command, environment=None, **options):
        process = self.sandbox.start(command, environment, **self.user, preexec_fn=limits, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_1_forbids(self):
        probe = self.start(['/opt/quern/sandbox-probe', self.cache, f'/opt/llm-models/{MODEL}'], stdout=subprocess.PIPE,
                           text=True)
        found = dict(line.split(' ', 1) for line in probe.communicate(timeout=60)[0].splitlines())
        self.assertEqual(probe.returncode, 0)
        may = {'write-cache', 'read-file', 'map-write', 'lock-memory', 'inet', 'unix'}
        self.assertEqual({name for name, result in found.items() if result == 'yes'}, may)
        self.assertEqual(len(found), 27)
        for name, why in {'map-write-execute': 'EPERM', 'make-executable': 'EPERM', 'netlink': 'EAFNOSUPPORT',
                          'packet': 'EAFNOSUPPORT', 'vsock': 'EAFNOSUPPORT',
                          'trace': 'EPERM', 'new-user-namespace': 'EPERM', 'set-personality': 'EPERM', 'add-key': 'EPERM',
                          'write-etc': 'EROFS',
                          'write-file': 'EROFS', 'run-set-user-id': 'EPERM'}.items():
            self.assertEqual(found[name], f'no {why}', name)

    def test_2_serves(self):
        for flags in ('--mlock', '--mlock --no-mmap', ''):
            with self.subTest(flags=flags):
                self.serve(flags)

    def serve(self, flags):
        port = free_port()
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        path = self.folder / 'run/notify'
        path.unlink(missing_ok=True)
        manager.bind(str(path))
        path.chmod(0o777)
        manager.settimeout(60)
        command = self.unit.command({'LOCAL_LLM_MODEL': f'/opt/llm-models/{MODEL}', 'LOCAL_LLM_ALIAS': 'tiny',
                                     'LOCAL_LLM_CTX_SIZE': '1024',
                                     'LOCAL_LLM_PORT': str(port), 'LOCAL_LLM_FLAGS': flags})
        log = tempfile.TemporaryFile('w+')
        self.addCleanup(log.close)
        process = self.start(command, {'NOTIFY_SOCKET': '/run/manager/notify', 'WATCHDOG_USEC': '1000000'}, stderr=log)
        said = []
        try:
            while 'READY=1' not in said or 'WATCHDOG=1' not in said:
                said.append(manager.recv(4096).decode())
        except TimeoutError:
            log.seek(0)
            self.fail(f'{said} {log.read()}')
        url = f'http://127.0.0.1:{port}'
        body = {'messages': [{'role': 'user', 'content': 'Say OK'}], 'max_tokens': 10, 'temperature': 0}

        def post(body):
            request = urllib.request.Request(url + '/v1/chat/completions', json.dumps(body).encode(),
                                             {'Content-Type': 'application/json'})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read().decode()
        self.assertEqual(json.loads(post(body))['choices'][0]['message']['content'], 'OK')
        self.assertIn('data: [DONE]',
                      post({**body, 'stream': True, 'messages': [{'role': 'user', 'content': 'Tell me a story. ' * 20}]}))
        pid = next(int(p.name) for p in Path('/proc').iterdir() if p.name.isdigit() and self.is_server(p, port))
        status = dict(line.split(':\t', 1) for line in Path(f'/proc/{pid}/status').read_text().splitlines() if ':\t' in line)
        self.assertEqual(status['Seccomp'].strip(), '2')
        self.assertEqual(status['NoNewPrivs'].strip(), '1')
        self.assertEqual(int(status['CapEff'], 16) | int(status['CapBnd'], 16), 0)
        if '--mlock' in flags:
            self.assertGreater(int(status['VmLck'].split()[0]), 5000)
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(process.wait(timeout=30), 0)

    @staticmethod
    def is_server(process, port):
        try:
            words = (process / 'cmdline').read_bytes().split(b'\0')
        except OSError:
            return False
        return words[0] == b'/opt/quern/quern-server' and str(port).encode() in words


if __name__ == '__main__':
    unittest.main(verbosity=2)
