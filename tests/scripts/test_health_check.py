#!/usr/bin/env python3
"""scripts/llm-health-check.sh against real servers in every state. systemctl and journalctl are stand-ins: they are the
system's, and a test can hardly have units killed for memory."""
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
from quern_process import ROOT, Quern  # noqa: E402

SCRIPT = ROOT / 'scripts' / 'llm-health-check.sh'
RESTART_ID, OOM_ID = '5eb03494b6584870a536b337290809b3', 'fe6faa94e7774663a0da52717891d8ef'


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class HealthCheck(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Quern()

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='quern health ')
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.bin = self.dir / 'bin'
        self.bin.mkdir()
        self.log, self.figures, self.state = (self.dir / name for name in ('health.log', 'metrics.log', 'state'))
        self.systemctl({})
        self.journal()

    def tool(self, name, text):
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def systemctl(self, properties):
        cases = ''.join(f'--property={k}) echo "{v}" ;;\n' for k, v in properties.items())
        self.tool('systemctl', f'#!/bin/sh\n[ "$1" = show ] || exit 1\ncase $2 in\n{cases}*) echo ;;\nesac\n')

    def journal(self, restarts=0, oom=0, kernel=0):
        """Answers as journalctl does: entries as JSON lines; a --grep without a hit exits with 1."""
        self.tool('journalctl', f'''#!/bin/sh
case "$*" in
    *--lines=1*) exit 0 ;;
    *MESSAGE_ID={RESTART_ID}*UNIT=local-llm.service*) n={restarts} ;;
    *MESSAGE_ID={OOM_ID}*UNIT=local-llm.service*) n={oom} ;;
    *_TRANSPORT=kernel*) n={kernel}; [ $n -gt 0 ] || exit 1 ;;
    *) echo "unexpected: $*" >&2; exit 1 ;;
esac
case "$*" in *--since=-1h*) ;; *) echo "no --since: $*" >&2; exit 1 ;; esac
i=0
while [ $i -lt $n ]; do echo '{{"MESSAGE":"x"}}'; i=$((i + 1)); done
''')

    def check(self, *flags, expect, url=None, env=None, path=None):
        run = subprocess.run([SCRIPT, '--url', url or self.server.url, '--log', self.log, '--metrics-log', self.figures,
                              '--state-dir', self.state,
                              *flags], capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL,
                             env={'PATH': path or f'{self.bin}:{os.environ["PATH"]}', **(env or {})})
        self.assertEqual(run.returncode, expect, run.stdout + run.stderr)
        return run

    def line(self, run):
        """Status, text and performance data of the one line that a plugin may print."""
        found = re.fullmatch(r'LLM (OK|WARNING|CRITICAL|UNKNOWN) - ([^|]*) \| (.*)\n', run.stdout)
        self.assertTrue(found, run.stdout + run.stderr)
        for item in found[3].split(' '):
            self.assertRegex(item, r'^[a-z0-9]+=(U|[0-9.]+[sB]?)(;[0-9.]*){3}$')
        self.assertEqual(run.returncode, ['OK', 'WARNING', 'CRITICAL', 'UNKNOWN'].index(found[1]))
        return found[1], found[2], dict(item.split('=', 1) for item in found[3].split(' '))

    def test_healthy(self):
        self.systemctl({'MainPID': self.server.process.pid})
        run = self.check(expect=0)
        status, text, perf = self.line(run)
        self.assertIn('health ok, response 0.', text)
        self.assertIn('0 restarts/h, 0 OOM kills/h', text)
        rss = int(perf['rss'].split('B')[0])
        vm = int(re.search(r'VmRSS:\s*(\d+) kB', Path(f'/proc/{self.server.process.pid}/status').read_text())[1]) * 1024
        self.assertLess(abs(rss - vm), 16e6)
        self.assertEqual(perf['down'], '0s;;120;0')
        self.assertRegex(self.log.read_text(), r'^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ LLM OK - health ok.*\n$')
        self.assertRegex(self.figures.read_text(), r'^\S+Z status=OK up=1 down_seconds=0 response_seconds=0\.\d+ rss_bytes=\d+ '
                                                   r'restarts_per_hour=0 oom_kills_per_hour=0 http_503_per_minute=\S+\n$')
        self.check(expect=0)
        self.assertEqual(len(self.log.read_text().splitlines()), 2)
        self.assertEqual(self.check('--quiet', expect=0).stdout, '')

    def test_thresholds(self):
        self.systemctl({'MainPID': self.server.process.pid})
        self.assertIn('WARNING', self.check('--max-rss', '1000000', expect=1).stdout)
        self.assertIn('WARNING', self.check(expect=1, env={'LLM_MAX_RESPONSE': '0.00001'}).stdout)
        self.assertIn('WARNING', self.check('--max-rss', '1000000', '--quiet', expect=1).stdout)

    def test_restarts_and_kills(self):
        self.journal(restarts=3)
        self.assertIn('3 restarts/h', self.line(self.check(expect=0))[1])
        self.journal(restarts=4)
        self.assertEqual(self.line(self.check(expect=2))[2]['restarts'], '4;;3;0')
        self.journal(oom=1)
        self.assertIn('1 OOM kills/h', self.line(self.check(expect=2))[1])
        self.journal(oom=1, kernel=1)
        self.assertIn('1 OOM kills/h', self.line(self.check(expect=2))[1])
        self.journal(kernel=2)
        self.assertIn('2 OOM kills/h', self.line(self.check(expect=2))[1])

    def test_without_systemd(self):
        tools = self.dir / 'tools'
        tools.mkdir()
        for name in ('bash', 'env', 'curl', 'awk', 'date', 'mkdir', 'mv', 'sed', 'tr', 'grep', 'sleep', 'uname', 'timeout',
                     'flock'):
            found = subprocess.run(['sh', '-c', f'command -v {name}'], capture_output=True, text=True, check=True).stdout.strip()
            (tools / name).symlink_to(found)
        _, text, perf = self.line(self.check(expect=0, path=str(tools)))
        self.assertIn('restarts and OOM kills unknown (no journal)', text)
        self.assertEqual(perf['restarts'], 'U;;3;0')
        # A journal that is there and cannot be read is no journal: its silence must not pass for "no kills".
        self.tool('journalctl',
                  '#!/bin/sh\ncase "$*" in *--lines=1*) exit 0 ;; esac\necho "No journal files were opened" >&2\nexit 1\n')
        self.assertIn('unknown (no journal)', self.line(self.check(expect=0))[1])
        (tools / 'curl').unlink()
        self.assertIn('LLM UNKNOWN - curl is missing', self.check(expect=3, path=str(tools)).stdout)

    def test_stopped(self):
        url = f'http://127.0.0.1:{free_port()}'
        _, text, perf = self.line(self.check(expect=1, url=url))
        self.assertIn('connection refused', text)
        self.assertEqual(perf['response'], 'U;10;;0')
        # The same outage, seen again after the limit, is critical; so is one that systemd dates back.
        self.age_outage(121)
        _, text, perf = self.line(self.check(expect=2, url=url))
        self.assertGreaterEqual(int(perf['down'].split('s')[0]), 121)
        self.assertIn('up=0', self.figures.read_text())
        self.line(self.check(expect=0))  # back
        self.line(self.check(expect=1, url=url))  # and the outage after that counts from its own beginning
        self.age_outage(None)
        since = time.strftime('%a %Y-%m-%d %H:%M:%S UTC', time.gmtime(time.time() - 300))
        self.systemctl({'ActiveState': 'failed', 'InactiveEnterTimestamp': since, 'MainPID': 0})
        self.line(self.check(expect=2, url=url))

    def age_outage(self, seconds):
        path = self.state / 'state'
        when = '' if seconds is None else str(int(time.time()) - seconds)
        path.write_text(re.sub(r'down_since=\d*', 'down_since=' + when, path.read_text()))

    def test_confirm(self):
        url = f'http://127.0.0.1:{free_port()}'
        started = time.monotonic()
        self.line(self.check('--confirm', '--max-down', '3', expect=2, url=url))
        self.assertGreater(time.monotonic() - started, 3)
        # An outage that ends while the check looks is none.
        port = free_port()
        later = []
        timer = threading.Timer(2, lambda: later.append(Quern(port=port)))
        timer.start()
        try:
            self.line(self.check('--confirm', expect=0, url=f'http://127.0.0.1:{port}'))
        finally:
            timer.join()
            self.assertEqual(later[0].stop(), 0)

    def test_loading(self):
        server = Quern(hold_loading=True)
        try:
            _, text, _ = self.line(self.check(expect=1, url=server.url))
            self.assertIn('still loading', text)
            self.age_outage(200)
            self.line(self.check(expect=2, url=server.url))
            server.release()
            server.wait_ready()
            self.line(self.check(expect=0, url=server.url))
        finally:
            self.assertEqual(server.stop(), 0)

    def test_stuck(self):
        server = Quern()
        server.process.send_signal(signal.SIGSTOP)
        try:
            self.assertIn('no answer within 5 s', self.line(self.check(expect=1, url=server.url))[1])
        finally:
            server.process.send_signal(signal.SIGCONT)
            server.stop()

    def test_key(self):
        server = Quern(env={'QUERN_API_KEY': 'se"sa\\me'})
        try:
            self.assertIn('check the key', self.line(self.check(expect=3, url=server.url))[1])
            self.line(self.check(expect=3, url=server.url, env={'LLM_API_KEY': 'wrong'}))
            self.line(self.check(expect=0, url=server.url, env={'LLM_API_KEY': 'se"sa\\me'}))
            file = self.dir / 'key'
            file.write_text('se"sa\\me\n')
            self.line(self.check('--key-file', file, expect=0, url=server.url))
            # Something worse outranks the unknown.
            self.journal(oom=1)
            self.line(self.check(expect=2, url=server.url))
        finally:
            server.stop()
        self.assertIn('cannot read the key', self.check('--key-file', self.dir / 'none', expect=3).stdout)

    def test_refused_requests(self):
        server = Quern('--metrics', '--parallel', '1', '--queue', '1')
        try:
            self.assertIn('503s unknown (first look)', self.line(self.check(expect=0, url=server.url))[1])
            self.line(self.check(expect=0, url=server.url))
            story = {'messages': [{'role': 'user', 'content': 'Tell me a story about a cat and a ball.'}], 'max_tokens': 400,
                     'temperature': 1}
            refused = []

            def ask():
                try:
                    server.post('/v1/chat/completions', story)
                except OSError as error:
                    refused.append(error.code)
            threads = [threading.Thread(target=ask) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertGreater(refused.count(503), 5)
            _, _, perf = self.line(self.check(expect=1, url=server.url))
            self.assertEqual(float(perf['http503'].split(';')[0]), refused.count(503))  # within the minute that counts at least
            rss = self.line(self.check(expect=0, url=server.url))[2]['rss']
            self.assertRegex(rss, r'^\d+B')  # without systemd, from the server itself
        finally:
            server.stop()

    def test_webhook(self):
        received, codes = [], []

        class Hook(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                received.append(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
                self.send_response(codes.pop(0) if codes else 204)
                self.end_headers()

            def log_message(self, *_):
                pass

        hook = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hook)
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        self.addCleanup(hook.server_close)
        self.addCleanup(hook.shutdown)
        env = {'LLM_WEBHOOK': f'http://127.0.0.1:{hook.server_port}/alert'}
        self.check(expect=0, env=env)
        self.assertEqual(received, [])
        self.journal(oom=1)
        codes.append(500)
        self.assertIn('sent again with the next run', self.check(expect=2, env=env).stderr)
        self.check(expect=2, env=env)
        self.check(expect=2, env=env)
        # Refused, then taken, then no more
        self.assertEqual([message['status'] for message in received], ['CRITICAL', 'CRITICAL'])
        self.assertEqual((received[1]['code'], received[1]['previous'], received[1]['unit']), (2, 'OK', 'local-llm'))
        self.assertIn('1 OOM kills/h', received[1]['text'])
        self.journal()
        self.check(expect=0, env=env)
        self.assertEqual((received[2]['status'], received[2]['previous']), ('OK', 'CRITICAL'))
        # A hook that does not answer neither hangs the check nor changes its result.
        with socket.socket() as silent:
            silent.bind(('127.0.0.1', 0))
            silent.listen()
            self.journal(oom=1)
            self.line(self.check('--webhook', f'http://127.0.0.1:{silent.getsockname()[1]}/', expect=2))

    def test_damaged_state_and_unwritable_logs(self):
        self.state.mkdir()
        (self.state / 'state').write_text('down_since=$(touch /tmp/x)\nlast_503=-1\n\0\xff=\n')
        self.line(self.check(expect=0))
        run = self.check('--log', '/proc/no/such', '--metrics-log', '', '--state-dir', '/proc/nothing', expect=0)
        self.line(run)
        self.assertIn('cannot write to /proc/no/such', run.stderr)

    def test_wrong_arguments(self):
        for flags in (['--what'], ['--max-rss', 'much'], ['--max-down', '1.5'], ['--url']):
            self.assertTrue(self.check(*flags, expect=3).stdout.startswith('LLM UNKNOWN - '))
        help_text = subprocess.run([SCRIPT, '--help'], capture_output=True, text=True, check=True).stdout
        self.assertIn('*/5 * * * *', help_text)


if __name__ == '__main__':
    unittest.main(verbosity=2)
