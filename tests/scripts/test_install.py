#!/usr/bin/env python3
"""scripts/install-local-llm.sh below a throw-away root, from a copy of the project in a folder with spaces in its name:
real builds, real servers.

QUERN_SERVER names a quern-server that is built already (default: build-test/quern-server)."""
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
from file_server import FileServer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get('QUERN_SERVER', ROOT / 'build-test/quern-server')).resolve()
TINY = 'quern-tiny-q4_k_m.gguf'
INTRODUCTION = 'I am the small demonstration model that ships with quern.'


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def snapshot(folder):
    return {str(p.relative_to(folder)): (p.lstat().st_mode, p.lstat().st_mtime_ns, p.lstat().st_ino) for p in folder.rglob('*')}


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix='quern install ')
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.copy = cls.folder / "someone's clone"
        shutil.copytree(ROOT, cls.copy, ignore=lambda folder, names: [
            n for n in names if n in ('.git', 'node_modules') or n.startswith('build')
            or (n.endswith(('.gguf', '.part', '.bad')) and n != TINY and Path(folder).name == 'models')])

    def setUp(self):
        self.root = Path(tempfile.mkdtemp(prefix='root', dir=self.folder))
        self.port = free_port()
        self.program = self.root / 'opt/quern/quern-server'
        self.settings = self.root / 'etc/default/local-llm'
        self.model = self.root / 'opt/llm-models' / TINY

    def script(self, *args):
        return [str(self.copy / 'scripts/install-local-llm.sh'), '--root', str(self.root), *args]

    def run_script(self, *args, expect=0, env=None):
        run = subprocess.run(self.script(*args), capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL, cwd='/',
                             env={**os.environ, **(env or {})})
        self.assertEqual(run.returncode, expect, run.stdout + run.stderr)
        with socket.socket() as s:  # whatever was started for the check has ended
            self.assertNotEqual(s.connect_ex(('127.0.0.1', self.port)), 0)
        return run.stdout + run.stderr

    def install(self, *args, **options):
        return self.run_script('--model', 'quern-tiny', '--binary', str(PROGRAM), '--port', str(self.port), '--ctx-size', '1024',
                               *args, **options)

    def fake(self, name, service):
        """A program that passes its trial; as the service it does what `service` says."""
        path = self.folder / f'{name}-{self.port}'
        path.write_text(f'#!/bin/bash\ncase "$*" in *--version*|*"--port 0"*) exec "{PROGRAM}" "$@" ;; esac\n{service}\n')
        path.chmod(0o755)
        return str(path)

    def same_program(self, other=PROGRAM):
        return self.program.read_bytes() == Path(other).read_bytes()

    def test_install(self):
        out = self.install()
        self.assertIn(INTRODUCTION, out)
        # Trial and service
        self.assertEqual(len(re.findall(r'^Speed: [\d.]+ tokens/s \(prompt: [\d.]+ tokens/s\)$', out, re.M)), 2, out)
        self.assertTrue(self.same_program())
        self.assertEqual(self.model.read_bytes(), (ROOT / 'models' / TINY).read_bytes())
        for path, mode in ((self.program, 0o755), (self.model, 0o644), (self.settings, 0o600)):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), mode, path)
        settings = dict(line.split('=', 1) for line in self.settings.read_text().splitlines() if not line.startswith('#'))
        self.assertEqual(settings, {'LOCAL_LLM_MODEL': f'/opt/llm-models/{TINY}', 'LOCAL_LLM_ALIAS': 'quern-tiny',
                                    'LOCAL_LLM_CTX_SIZE': '1024',
                                    'LOCAL_LLM_PORT': str(self.port), 'LOCAL_LLM_FLAGS': '--mlock --metrics'})
        units = self.root / 'etc/systemd/system'
        for unit in ('local-llm.service', 'local-llm.socket'):
            self.assertEqual((units / unit).read_bytes(), (ROOT / 'scripts/systemd' / unit).read_bytes())
        self.assertIn(f'ListenStream=127.0.0.1:{self.port}', (units / 'local-llm.socket.d/port.conf').read_text())
        self.assertEqual(os.readlink(units / 'multi-user.target.wants/local-llm.service'),
                         '/etc/systemd/system/local-llm.service')

    def test_install_again(self):
        self.install()
        self.settings.write_text(self.settings.read_text().replace('--mlock', '--mlock --queue 7') + '# mine\n')
        before = snapshot(self.root)
        out = self.run_script('--binary', str(PROGRAM))
        self.assertEqual(snapshot(self.root), before)
        self.assertNotIn('Installed:', out)
        self.assertIn(INTRODUCTION, out)
        # What is given anew changes, what the operator wrote stays.
        self.run_script('--binary', str(PROGRAM), '--ctx-size', '512')
        text = self.settings.read_text()
        for line in ('LOCAL_LLM_CTX_SIZE=512', '--mlock --queue 7', '# mine', f'LOCAL_LLM_PORT={self.port}'):
            self.assertIn(line, text)

    def test_upgrade(self):
        self.install()
        newer = self.fake('newer', f'exec "{PROGRAM}" "$@"')
        settings = self.settings.read_bytes()
        out = self.run_script('--upgrade', '--binary', newer)
        self.assertTrue(self.same_program(newer))
        self.assertTrue((self.root / 'opt/quern/previous/quern-server').read_bytes() == PROGRAM.read_bytes())
        self.assertIn('previous/quern-server', out)
        self.assertEqual(self.settings.read_bytes(), settings)

    def test_upgrade_that_fails(self):
        self.install()
        units = self.root / 'etc/systemd/system/local-llm.service'
        old_unit = units.read_text() + '# an older one\n'
        units.write_text(old_unit)
        for name, service in (('ends', 'echo "cannot read the model" >&2; exit 1'),
                              ('sleeps', 'echo "cannot get healthy" >&2; exec sleep 300'),
                              ('crashes', 'kill -SEGV $$')):
            with self.subTest(name=name):
                out = self.run_script('--upgrade', '--binary', self.fake(name, service), '--wait', '4', expect=1)
                self.assertIn('the old one is back and works', out)
                self.assertTrue(self.same_program())
                self.assertEqual(units.read_text(), old_unit)  # the unit came with the new program, and went with it
                if name != 'crashes':
                    self.assertIn('cannot ', out)  # its last words

    def test_upgrade_that_never_gets_so_far(self):
        self.install()
        before = snapshot(self.root)
        broken = self.folder / f'broken-{self.port}'
        for text in ('#!/bin/sh\nexit 1\n',
                     f'#!/bin/sh\ncase "$*" in --version) exec "{PROGRAM}" "$@" ;; esac\n'
                     'echo "no such instruction" >&2; exit 1\n',
                     '\x7fELF this is none'):
            with self.subTest(text=text):
                broken.write_text(text)
                broken.chmod(0o755)
                out = self.run_script('--upgrade', '--binary', str(broken), '--wait', '4', expect=1)
                self.assertIn('Nothing has been changed', out)
        self.assertEqual(snapshot(self.root), before)

    def test_upgrade_interrupted(self):
        self.install()
        process = subprocess.Popen(self.script('--upgrade', '--binary', self.fake('waits', 'exec sleep 300')),
                                   stderr=subprocess.PIPE, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        said = ''
        while 'Starting the program directly' not in said:
            line = process.stderr.readline()
            self.assertNotEqual(line, '', said)
            said += line
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=120)[1]
        self.assertEqual(process.returncode, 1, said)
        self.assertIn('the old one is back and works', said)
        self.assertTrue(self.same_program())

    def test_first_install_that_fails(self):
        out = self.install('--binary', self.fake('ends', 'echo "cannot lock" >&2; exit 1'), '--wait', '4', expect=1)
        self.assertIn('cannot lock', out)
        self.assertFalse(self.program.exists())
        self.assertFalse((self.root / 'etc/systemd/system/local-llm.service').exists())
        self.assertFalse((self.root / 'etc/systemd/system/multi-user.target.wants/local-llm.service').is_symlink())
        self.assertTrue(self.model.exists())  # a gigabyte is not fetched twice
        self.install()

    def test_uninstall(self):
        self.install()
        self.assertIn('would remove', self.run_script('--uninstall', '--purge', '--dry-run'))
        self.assertTrue(self.program.exists() and self.model.exists())
        out = self.run_script('--uninstall')
        self.assertIn('Kept', out)
        self.assertFalse((self.root / 'opt/quern').exists())
        self.assertEqual([p for p in (self.root / 'etc/systemd/system').rglob('*') if not p.is_dir() or 'local-llm' in p.name],
                         [])
        self.assertTrue(self.model.exists() and self.settings.exists())
        self.assertIn('not installed', self.run_script('--uninstall'))
        # Installed again, it is as it was.
        self.run_script('--binary', str(PROGRAM))
        (self.root / 'opt/llm-models/mine.gguf').write_text('mine')
        cache = self.root / 'var/cache/private/local-llm'
        cache.mkdir(parents=True)
        out = self.run_script('--uninstall', '--purge')
        self.assertFalse(self.model.exists() or self.settings.exists() or cache.exists())
        self.assertEqual((self.root / 'opt/llm-models/mine.gguf').read_text(), 'mine')
        self.assertIn('mine.gguf', out)

    def test_dry_run(self):
        out = self.install('--dry-run')
        self.assertEqual(snapshot(self.root), {})
        for words in ('Checking the machine', 'would run', 'would install', 'systemctl restart'):
            self.assertIn(words, out)

    def test_builds_and_fetches(self):
        data = (ROOT / 'models' / TINY).read_bytes() + b'\0'
        server = FileServer({'other.gguf': data})
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        models = self.copy / 'models.txt'
        before = models.read_text()
        self.addCleanup(models.write_text, before)
        models.write_text(f'{before}\nname: other\nfile: other.gguf\nbytes: {len(data)}\n'
                          f'sha256: {hashlib.sha256(data).hexdigest()}\nlicence: none\n'
                          f'ram_mb: 50\nurl: {server.url("good/other.gguf")}\n')
        out = self.run_script('--model', 'other', '--port', str(self.port), '--ctx-size', '512')
        self.assertIn('Built:', out)
        self.assertIn(INTRODUCTION, out)
        self.assertEqual((self.root / 'opt/llm-models/other.gguf').read_bytes(), data)
        self.assertIn('LOCAL_LLM_ALIAS=other', self.settings.read_text())

    def test_model_files(self):
        good = self.folder / f'my-model-{self.port}.gguf'
        shutil.copy(ROOT / 'models' / TINY, good)
        # Known by its digest, whatever it is called.
        self.run_script('--model-file', str(good), '--binary', str(PROGRAM), '--port', str(self.port), '--ctx-size', '512')
        self.assertTrue(self.model.exists())
        # Unknown, and a model all the same.
        good.write_bytes(good.read_bytes() + b'\0')
        self.run_script('--model-file', str(good), '--binary', str(PROGRAM))
        self.assertIn(f'LOCAL_LLM_ALIAS={good.stem}', self.settings.read_text())
        before = snapshot(self.root)
        damaged = self.folder / TINY
        damaged.write_bytes(good.read_bytes()[:-1][:-100] + bytes(100))
        no_model = self.folder / 'no-model.gguf'
        no_model.write_bytes(b'<html>not found</html>')
        odd = self.folder / "it's a model.gguf"
        shutil.copy(good, odd)
        for path, words in ((damaged, 'wrong size or digest'), (no_model, 'no GGUF file'),
                            (self.folder / 'nothing.gguf', 'cannot read'), (odd, 'unusual characters')):
            with self.subTest(path=path):
                self.assertIn(words, self.run_script('--model-file', str(path), '--binary', str(PROGRAM), expect=1))
        self.assertEqual(snapshot(self.root), before)

    def machine(self, megabytes):
        """A proc folder of a machine with so much memory (millions of bytes)."""
        proc = self.folder / f'proc-{megabytes}'
        proc.mkdir(exist_ok=True)
        kilobytes = megabytes * 1000000 // 1024
        (proc / 'meminfo').write_text(f'MemTotal: {kilobytes} kB\nMemAvailable: {kilobytes} kB\n')
        shutil.copy('/proc/cpuinfo', proc)
        return {'QUERN_PROC': str(proc)}

    def test_context(self):
        common = ('--binary', str(PROGRAM), '--port', str(self.port))
        # As much as models.txt has, if the machine and the unit have the memory.
        for model, megabytes, context in (('qwen2.5-1.5b-instruct', 8000, 32768), ('qwen2.5-1.5b-instruct', 3100, 16384),
                                          ('qwen2.5-1.5b-instruct', 2370, 2048),
                                          ('qwen2.5-0.5b-instruct', 2100, 32768), ('qwen2.5-3b-instruct', 8000, 8192),
                                          ('quern-tiny', 8000, 1024)):
            out = self.run_script('--model', model, *common, '--dry-run', env=self.machine(megabytes))
            self.assertIn(f'Context: {context} tokens', out)
            little = (model, megabytes) in (('qwen2.5-1.5b-instruct', 3100), ('qwen2.5-1.5b-instruct', 2370))
            self.assertEqual('too little memory' in out, little, out)
            self.assertEqual('OpenClaw refuses models below 4000' in out, context < 4000, out)
        out = self.run_script('--model', 'qwen2.5-3b-instruct', *common, '--ctx-size', '32768', '--dry-run',
                              env=self.machine(8000))
        self.assertIn('MemoryHigh', out)
        self.assertIn('contextWindow', out)
        out = self.run_script('--model', 'qwen2.5-1.5b-instruct', *common, '--ctx-size', '32768', expect=1,
                              env=self.machine(3000))
        self.assertIn('smaller --ctx-size', out)
        # The shipped model holds less than 2048, and is installed like every other one.
        self.run_script('--model', 'quern-tiny', *common)
        self.assertIn('LOCAL_LLM_CTX_SIZE=1024\n', self.settings.read_text())
        # What the operator wrote stays with the model, and goes with it.
        self.settings.write_text(self.settings.read_text().replace('=1024', '=600'))
        self.run_script('--model', 'quern-tiny', *common)
        self.assertIn('LOCAL_LLM_CTX_SIZE=600\n', self.settings.read_text())
        other = self.folder / f'other-{self.port}.gguf'
        other.write_bytes((ROOT / 'models' / TINY).read_bytes() + b'\0')
        self.run_script('--model-file', str(other), *common)
        self.assertIn('LOCAL_LLM_CTX_SIZE=0\n', self.settings.read_text())  # the program's own choice: it was healthy with 1024
        self.settings.write_text(self.settings.read_text().replace('CTX_SIZE=0', 'CTX_SIZE=many'))
        self.assertIn("no number: 'many'", self.run_script('--upgrade', '--binary', str(PROGRAM), expect=1))

    def test_refuses(self):
        proc = self.folder / 'proc'
        proc.mkdir(exist_ok=True)
        flags = Path('/proc/cpuinfo').read_text()
        small = 'MemTotal: 900000 kB\nMemAvailable: 400000 kB\n'
        cases = [(small, flags, 'Choose a smaller model')]
        if os.uname().machine == 'x86_64':
            cases.append((Path('/proc/meminfo').read_text(), flags.replace('avx2', ''), 'no AVX2'))
        for meminfo, cpuinfo, words in cases:
            (proc / 'meminfo').write_text(meminfo)
            (proc / 'cpuinfo').write_text(cpuinfo)
            with self.subTest(words=words):
                out = self.install(expect=1, env={'QUERN_PROC': str(proc)})
                self.assertIn(words, out)
                self.assertIn('--force', out)
                self.assertEqual(snapshot(self.root), {})
                self.assertIn('Warning', self.install('--force', '--dry-run', env={'QUERN_PROC': str(proc)}))
        for args, words in ((('--model', 'nope'), 'quern-tiny'), (('--bogus',), '--help'), (('--port', '0'), '--port takes'),
                            (('--port', '65536'), '--port takes'),
                            (('--wait', 'x'), '--wait takes'), (('--ctx-size', '-1'), '--ctx-size takes'),
                            (('--model',), 'needs a value'), (('--purge',), '--uninstall'),
                            (('--model', 'quern-tiny', '--model-file', 'x'), 'exclude'),
                            (('--upgrade', '--uninstall'), 'exclude'),
                            (('--upgrade',), 'nothing is installed'), (('--upgrade', '--port', '1'), 'changes no settings'),
                            (('--binary', '/nonexistent', '--model', 'quern-tiny', '--port', str(self.port)), 'is no program')):
            with self.subTest(args=args):
                self.assertIn(words, self.run_script(*args, expect=1))
        with socket.socket() as other:
            other.bind(('127.0.0.1', 0))
            other.listen()
            port = str(other.getsockname()[1])
            out = self.run_script('--model', 'quern-tiny', '--binary', str(PROGRAM), '--port', port, expect=1)
            self.assertIn('already listens', out)
        self.assertEqual(snapshot(self.root), {})

    def test_one_at_a_time(self):
        with open(self.copy / 'scripts/install-local-llm.sh') as script:
            fcntl.flock(script, fcntl.LOCK_EX)
            self.assertIn('another run', self.install(expect=1))


if __name__ == '__main__':
    unittest.main(verbosity=2)
