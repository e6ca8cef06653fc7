#!/usr/bin/env python3
"""scripts/fetch-model.sh against a real server on loopback that does all that servers and networks do to a download."""
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
from file_server import FileServer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'scripts' / 'fetch-model.sh'
NAME = 'some-model'
FILE = 'some-model.gguf'
DATA = random.Random(1).randbytes(1_000_003)
DIGEST = hashlib.sha256(DATA).hexdigest()


class FetchModel(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='quern fetch ')  # with a space, as paths may have
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.server = FileServer({FILE: DATA})
        self.addCleanup(self.server.shutdown)
        self.addCleanup(self.server.server_close)
        self.models = self.dir / 'models.txt'
        self.describe()
        self.target = self.dir / FILE
        self.part = self.dir / (FILE + '.part')

    def describe(self, **changes):
        record = {'name': NAME, 'file': FILE, 'bytes': len(DATA), 'sha256': DIGEST, 'licence': 'Apache-2.0', 'ram_mb': 1,
                  'url': self.server.url('good/' + FILE)} | changes
        self.models.write_text('# a comment\n\n' + ''.join(f'{k}: {v}\n' for k, v in record.items()))

    def command(self, *args):
        return [str(SCRIPT), NAME, '--dir', str(self.dir), '--models', str(self.models), *args]

    def fetch(self, mode=None, *args, expect=0, env=None):
        if mode:
            args = ('--url', self.server.url(f'{mode}/{FILE}'), *args)
        run = subprocess.run(self.command(*args), capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
                             cwd='/', env={**os.environ, **(env or {})})
        self.assertEqual(run.returncode, expect, run.stderr)
        return run

    def assert_whole(self, run):
        self.assertEqual(self.target.read_bytes(), DATA)
        self.assertFalse(self.part.exists())
        self.assertEqual(run.stdout, f'{self.target}\n')  # the path and nothing else: scripts read it

    def assert_none(self):
        self.assertFalse(self.target.exists())

    def test_fetches_from_the_listed_address(self):
        run = self.fetch()
        self.assert_whole(run)
        self.assertIn('Apache-2.0', run.stderr)
        self.assertEqual(self.server.requests, [(f'/good/{FILE}', None)])

    def test_follows_redirects(self):
        self.assert_whole(self.fetch('redirect'))

    def test_mirror_from_the_environment(self):
        self.describe(url='http://127.0.0.1:9/nothing-here')
        self.assert_whole(self.fetch(env={'QUERN_MODELS_URL': self.server.url('good/')}))

    def test_addresses_are_tried_in_order(self):
        self.describe(url=self.server.url('status/404/x') + '\nurl: ' + self.server.url('good/' + FILE))
        self.assert_whole(self.fetch())

    def test_restriction_is_shown(self):
        self.describe(restriction='NON-COMMERCIAL USE ONLY')
        self.assertIn('*** NON-COMMERCIAL USE ONLY ***', self.fetch().stderr)

    def test_whole_file_is_kept_without_a_request(self):
        self.target.write_bytes(DATA)
        before = self.target.stat().st_mtime_ns
        self.assert_whole(self.fetch())
        self.assertEqual(self.target.stat().st_mtime_ns, before)
        self.assertEqual(self.server.requests, [])

    def test_wrong_file_of_that_name_is_moved_aside(self):
        for wrong in (DATA[:-1], DATA[:-1] + bytes([DATA[-1] ^ 1])):  # by size, by digest
            with self.subTest(size=len(wrong)):
                self.target.write_bytes(wrong)
                run = self.fetch()
                self.assert_whole(run)
                self.assertEqual((self.dir / (FILE + '.bad')).read_bytes(), wrong)
                self.assertIn('.bad', run.stderr)

    def test_continues_a_part(self):
        self.part.write_bytes(DATA[:400_000])
        self.assert_whole(self.fetch('good'))
        self.assertEqual(self.server.requests, [(f'/good/{FILE}', 'bytes=400000-')])

    def test_complete_part_needs_no_request(self):
        self.part.write_bytes(DATA)
        self.assert_whole(self.fetch('good'))
        self.assertEqual(self.server.requests, [])

    def test_part_that_is_too_long(self):
        self.part.write_bytes(DATA + b'x')
        self.assert_whole(self.fetch('good'))
        self.assertEqual(self.server.requests, [(f'/good/{FILE}', None)])

    def test_part_with_a_bad_beginning_is_fetched_anew(self):
        self.part.write_bytes(b'x' * 400_000)
        run = self.fetch('good')
        self.assert_whole(run)
        self.assertIn('from the start', run.stderr)
        self.assertEqual([r for _, r in self.server.requests], ['bytes=400000-', None])

    def test_server_that_ignores_ranges(self):
        self.part.write_bytes(DATA[:400_000])
        self.assert_whole(self.fetch('norange'))
        self.assertEqual(len(self.server.requests), 2)

    def test_server_that_answers_with_another_range(self):
        self.part.write_bytes(DATA[:400_000])
        self.assert_whole(self.fetch('wrongrange'))

    def test_broken_connection_is_continued(self):
        self.assert_whole(self.fetch('cutonce'))
        self.assertEqual(self.server.requests[1][1], f'bytes={len(DATA) // 2}-')

    def test_connection_that_always_breaks_still_gets_there(self):
        # Every answer gives half of what is missing: twenty interruptions, each one further on.
        self.describe(bytes=2000, sha256=hashlib.sha256(DATA[:2000]).hexdigest())
        self.server.files[FILE] = DATA[:2000]
        self.fetch('cut', expect=1)  # the last byte: half of 1 is 0, and no progress ends it
        self.assert_none()
        self.assertEqual(self.part.read_bytes(), DATA[:1999])
        self.fetch('good')
        self.assertEqual(self.target.read_bytes(), DATA[:2000])

    def test_busy_server_is_asked_again(self):
        self.assert_whole(self.fetch('busyonce'))

    def test_corrupt_file(self):
        run = self.fetch('corrupt', expect=1)
        self.assertIn(DIGEST, run.stderr)
        self.assertIn('wrong SHA-256', run.stderr)
        self.assert_none()
        self.assertFalse(self.part.exists())

    def test_file_that_is_too_short(self):
        run = self.fetch('short', expect=1)
        self.assertIn(f'{len(DATA) - 100} bytes', run.stderr)
        self.assert_none()
        self.assertFalse(self.part.exists())

    def test_file_that_is_too_long(self):
        for mode in ('long', 'endless'):
            with self.subTest(mode=mode):
                self.assertIn('longer than', self.fetch(mode, expect=1).stderr)
                self.assert_none()
                self.assertFalse(self.part.exists())

    def test_too_long_when_continued(self):
        self.part.write_bytes(DATA[:900_000])
        self.assertIn('longer than', self.fetch('long', expect=1).stderr)
        self.assert_none()

    def test_page_in_place_of_the_file(self):
        # What a hotel's network answers to everything.
        self.assertIn('not this model', self.fetch('status/200', expect=1).stderr)
        self.assert_none()

    def test_missing_file_and_refusal(self):
        self.part.write_bytes(DATA[:400_000])
        self.assertIn('no such file', self.fetch('status/404', expect=1).stderr)
        self.assertIn('refuses', self.fetch('status/403', expect=1).stderr)
        self.assert_none()
        self.assertEqual(self.part.read_bytes(), DATA[:400_000])  # no reason to throw it away
        self.assertEqual(len(self.server.requests), 2)  # and none to ask twice

    def test_nothing_listens(self):
        self.server.shutdown()
        self.server.server_close()
        self.assertIn('offline', self.fetch('good', expect=1).stderr)
        self.assertFalse(self.part.exists())

    def test_name_that_does_not_resolve(self):
        run = self.fetch(None, '--url', 'http://quern.invalid/x', expect=1)
        self.assertIn('offline', run.stderr)

    def test_disk_space_is_checked_before_anything_is_asked(self):
        self.describe(bytes=10 ** 14)
        self.assertIn('not enough disk space', self.fetch(expect=1).stderr)
        self.assertEqual(self.server.requests, [])
        self.assertFalse(self.part.exists())

    def start_slow(self):
        # SIGINT is ignored in what a shell starts in the background; a person's terminal does not do that.
        run = subprocess.Popen(self.command('--url', self.server.url(f'slow/{FILE}')), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.addCleanup(run.stderr.close)
        self.addCleanup(run.stdout.close)
        deadline = time.monotonic() + 30
        while not (self.part.exists() and self.part.stat().st_size > 50_000):
            self.assertLess(time.monotonic(), deadline, 'the download does not start')
            time.sleep(0.02)
        return run

    def test_interrupted_download_goes_on_where_it_stopped(self):
        run = self.start_slow()
        os.killpg(run.pid, signal.SIGINT)
        self.assertEqual(run.wait(30), 130)
        self.assert_none()
        got = self.part.stat().st_size
        self.assertEqual(self.part.read_bytes(), DATA[:got])
        self.assert_whole(self.fetch('good'))
        self.assertEqual(self.server.requests[-1], (f'/good/{FILE}', f'bytes={got}-'))

    def test_two_downloads_do_not_mix(self):
        run = self.start_slow()
        self.assertIn('another download', self.fetch('good', expect=1).stderr)
        self.assertEqual(run.wait(60), 0)
        self.assertEqual(self.target.read_bytes(), DATA)

    def test_bad_records(self):
        for change in ({'file': '../evil.gguf'}, {'file': '.hidden'}, {'bytes': '12x'}, {'bytes': '0'}, {'sha256': 'abc'}):
            with self.subTest(**change):
                self.describe(**change)
                self.assertIn('models.txt', self.fetch(expect=1).stderr)
        self.assertEqual(self.server.requests, [])

    def test_bad_arguments(self):
        for args, code in ((['nope'], 1), ([], 2), (['--dir'], 1), (['--bogus'], 1), (['quern-tiny', 'quern-tiny'], 1)):
            with self.subTest(args=args):
                run = subprocess.run([str(SCRIPT), *args], capture_output=True, text=True, timeout=60)
                self.assertEqual(run.returncode, code)
                self.assertTrue(run.stderr)


class ModelsList(unittest.TestCase):
    def test_every_record_is_complete(self):
        text = (ROOT / 'models.txt').read_text()
        records = [dict(line.split(': ', 1) for line in block.splitlines() if not line.startswith('#'))
                   for block in text.split('\n\n') if re.search('^name:', block, re.M)]
        self.assertEqual([r['name'] for r in records],
                         ['quern-tiny', 'qwen2.5-0.5b-instruct', 'qwen2.5-1.5b-instruct', 'qwen2.5-3b-instruct'])
        for record in records:
            self.assertRegex(record['sha256'], '^[0-9a-f]{64}$')
            self.assertRegex(record['bytes'], '^[0-9]+$')
            for key in ('ram_mb', 'context', 'token_bytes'):
                self.assertRegex(record[key], '^[0-9]+$')
            self.assertTrue(record['licence'])
            if record['name'] != 'quern-tiny':
                self.assertTrue(record['url'].startswith('https://') and record['url'].endswith('/' + record['file']))
                # An address that can change its meaning would break the digest one day.
                self.assertRegex(record['url'], '/resolve/[0-9a-f]{40}/')
        self.assertIn('NON-COMMERCIAL', records[3]['restriction'])

    def test_list_names_all(self):
        run = subprocess.run([str(SCRIPT), '--list'], capture_output=True, text=True, check=True, timeout=60)
        for name in ('quern-tiny', 'qwen2.5-0.5b-instruct', 'qwen2.5-1.5b-instruct', 'qwen2.5-3b-instruct'):
            self.assertIn(name, run.stdout)

    def test_shipped_model_is_whole(self):
        run = subprocess.run([str(SCRIPT), 'quern-tiny'], capture_output=True, text=True, timeout=60)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertTrue(Path(run.stdout.strip()).is_file())


if __name__ == '__main__':
    unittest.main(verbosity=2)
