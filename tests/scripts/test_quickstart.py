#!/usr/bin/env python3
"""scripts/quickstart.sh in a copy of the project, in a folder with spaces in its name: a real build, a real server."""
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

sys.dont_write_bytecode = True
from file_server import FileServer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TINY = 'quern-tiny-q4_k_m.gguf'
INTRODUCTION = 'I am the small demonstration model that ships with quern.'


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def healthy(port):
    try:
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=10) as answer:
            return answer.status == 200
    except urllib.error.URLError:
        return False


class Quickstart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix='quern quick start ')
        cls.addClassCleanup(cls.folder.cleanup)
        cls.copy = Path(cls.folder.name) / "someone's clone"
        shutil.copytree(ROOT, cls.copy, ignore=lambda folder, names: [
            n for n in names if n in ('.git', 'node_modules') or n.startswith('build')
            or (n.endswith(('.gguf', '.part', '.bad')) and n != TINY and Path(folder).name == 'models')])
        cls.port = free_port()
        cls.addClassCleanup(cls.run_script, '--stop', '--port', str(cls.port))

    @classmethod
    def run_script(cls, *args, env=None):
        return subprocess.run([str(cls.copy / 'scripts/quickstart.sh'), *args], capture_output=True, text=True, timeout=900,
                              stdin=subprocess.DEVNULL, cwd='/', env={**os.environ, **(env or {})})

    def quickstart(self, *args, expect=0, env=None):
        run = self.run_script(*args, '--port', str(self.port), env=env)
        self.assertEqual(run.returncode, expect, run.stdout + run.stderr)
        return run

    def pid(self):
        return int((self.copy / f'build/quern-server-{self.port}.pid').read_text())

    def path_without(self, *missing):
        """A PATH with what Debian always has, and without these commands."""
        folder = Path(tempfile.mkdtemp(prefix='path', dir=self.folder.name))
        for source in ('/usr/bin', '/bin', '/usr/sbin'):
            for tool in Path(source).iterdir():
                if tool.name not in missing and not (folder / tool.name).exists():
                    (folder / tool.name).symlink_to(tool)
        return folder

    def test_1_answers(self):
        run = self.quickstart()
        self.assertIn(INTRODUCTION, run.stdout)
        speeds = [float(n) for n in re.findall(r'([\d.]+) tokens/s', run.stdout)]
        self.assertEqual(len(speeds), 2, run.stdout)
        self.assertTrue(all(s > 0 for s in speeds))
        for hint in ('--stop', 'curl http', 'qwen2.5-1.5b-instruct'):
            self.assertIn(hint, run.stdout)
        self.assertTrue(healthy(self.port))

    def test_2_again_starts_anew(self):
        self.quickstart()
        before = self.pid()
        run = self.quickstart()
        self.assertIn(INTRODUCTION, run.stdout)
        self.assertNotEqual(self.pid(), before)
        self.assertFalse(Path(f'/proc/{before}').exists())

    def test_3_fetches_a_model_first(self):
        data = (self.copy / 'models' / TINY).read_bytes()
        server = FileServer({'other.gguf': data})
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        models = self.copy / 'models.txt'
        record = re.search(r'^name: quern-tiny\n(.+\n)+', models.read_text(), re.M).group(0)
        models.write_text(models.read_text() + '\n' + record.replace('quern-tiny-q4_k_m', 'other')
                          .replace('name: quern-tiny', 'name: other') + f'url: {server.url("good/other.gguf")}\n')
        run = self.quickstart('other')
        self.assertIn(INTRODUCTION, run.stdout)
        self.assertEqual((self.copy / 'models/other.gguf').read_bytes(), data)
        self.assertEqual(len(server.requests), 1)
        self.quickstart('other')
        self.assertEqual(len(server.requests), 1)  # fetched once

    def test_4_stop(self):
        self.quickstart()
        pid = self.pid()
        self.assertIn('Stopped', self.quickstart('--stop').stderr)
        self.assertFalse(Path(f'/proc/{pid}').exists())
        self.assertFalse(healthy(self.port))
        self.assertIn('No server', self.quickstart('--stop').stderr)

    def test_5_leaves_others_alone(self):
        self.quickstart('--stop')
        other = subprocess.Popen([sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', str(self.port)],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder.name)
        try:
            for _ in range(200):
                with socket.socket() as s:
                    if s.connect_ex(('127.0.0.1', self.port)) == 0:
                        break
                time.sleep(0.05)
            # A number left in the pid file by a server long gone may belong to any process now.
            (self.copy / f'build/quern-server-{self.port}.pid').write_text(str(other.pid))
            run = self.quickstart(expect=1)
            self.assertIn('already listens', run.stderr)
            self.assertIn('--port', run.stderr)
            self.quickstart('--stop')
            self.assertIsNone(other.poll())
        finally:
            other.kill()
            other.wait()

    def test_6_a_server_that_does_not_start_is_explained(self):
        broken = self.copy / 'models/broken.gguf'
        broken.write_bytes(b'GGUF' + bytes(100))
        run = self.quickstart(str(broken), expect=1)
        self.assertIn('did not start', run.stderr)
        self.assertIn('broken.gguf', run.stderr)  # the server's own sentence
        self.assertFalse((self.copy / f'build/quern-server-{self.port}.pid').exists())

    def test_7_bad_arguments(self):
        for args, words in ((('nope',), 'quern-tiny'), (('/nowhere/x.gguf',), 'cannot read'), (('--bogus',), '--help')):
            with self.subTest(args=args):
                self.assertIn(words, self.quickstart(*args, expect=1).stderr)
        for port in ('0', '65536', 'x', ''):
            with self.subTest(port=port):
                self.assertEqual(self.run_script('--port', port).returncode, 1)

    def test_8_missing_tools(self):
        tools = ('cc', 'gcc', 'meson', 'ninja', 'sudo')
        path = self.path_without(*tools, 'apt-get')
        run = self.quickstart(expect=1, env={'PATH': str(path)})
        self.assertIn('gcc libc6-dev meson ninja-build', run.stderr)
        self.assertIn('no apt-get', run.stderr)
        # Not root, and no sudo: says what root is to run, and runs nothing.
        path = self.path_without(*tools, 'apt-get', 'id')
        for name, text in (('id', 'echo 1000'), ('apt-get', f'touch "{path}/called"')):
            (path / name).write_text(f'#!/bin/sh\n{text}\n')
            (path / name).chmod(0o755)
        run = self.quickstart(expect=1, env={'PATH': str(path)})
        self.assertIn('apt-get install gcc libc6-dev meson ninja-build', run.stderr)
        self.assertFalse((path / 'called').exists())
        # Not root, but sudo: goes through it, and says so first.
        (path / 'sudo').write_text(f'#!/bin/sh\necho "$@" >>"{path}/sudo-called"\nexit 1\n')
        (path / 'sudo').chmod(0o755)
        run = self.quickstart(expect=1, env={'PATH': str(path)})
        self.assertIn('through sudo', run.stderr)
        self.assertIn('could not install', run.stderr)
        self.assertIn('install -y', (path / 'sudo-called').read_text())


if __name__ == '__main__':
    unittest.main(verbosity=2)
