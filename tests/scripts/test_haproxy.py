#!/usr/bin/env python3
"""config/haproxy/haproxy.cfg as it is, but for addresses and paths, in front of three real quern-servers with a key."""
import collections
import http.client
import json
import os
import re
import shutil
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

CONFIG = ROOT / 'config' / 'haproxy' / 'haproxy.cfg'
HAPROXY = shutil.which('haproxy') or shutil.which('haproxy', path='/usr/sbin')
KEY = 'sesame'
SYSTEM = {'role': 'system', 'content': 'You are a helpful assistant.'}


def chat(text, **more):
    return {'messages': [SYSTEM, {'role': 'user', 'content': text}], 'max_tokens': 10, 'temperature': 0, **more}


STORY = {'messages': [{'role': 'user', 'content': 'Tell me a story about a cat and a ball.'}], 'temperature': 1}


@unittest.skipUnless(HAPROXY, 'haproxy is not here')
class Proxy(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='quern-haproxy-')
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.servers = []
        self.addCleanup(lambda: [server.kill() for server in self.servers if server.process.poll() is None])

    def quern(self, *flags, **more):
        self.servers.append(Quern('--alias', f'quern{len(self.servers) + 1}', *flags, env={'QUERN_API_KEY': KEY}, **more))
        return self.servers[-1]

    def start(self, *flags):
        for _ in range(3 - len(self.servers)):
            self.quern(*flags)
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            self.port = s.getsockname()[1]
        text = CONFIG.read_text()
        changes = {'bind 127.0.0.1:8760': f'bind 127.0.0.1:{self.port}', 'log /dev/log local0': 'log stderr format raw local0'}
        changes |= {f'10.0.0.1{i + 1}:8765': f'127.0.0.1:{server.port}' for i, server in enumerate(self.servers)}
        for old, new in changes.items():
            self.assertEqual(text.count(old), 1, old)
            text = text.replace(old, new)
        config = self.dir / 'haproxy.cfg'
        config.write_text(text)
        self.log = open(self.dir / 'log', 'w+')
        self.proxy = subprocess.Popen([HAPROXY, '-db', '-f', config], stdout=self.log, stderr=subprocess.STDOUT,
                                      stdin=subprocess.DEVNULL,
                                      env={**os.environ, 'QUERN_API_KEY': KEY})
        self.addCleanup(self.end)
        for end in range(int(time.monotonic()) + 30, 0, -1):
            try:
                if self.ask('GET', '/health')[0] == 200:
                    break
            except OSError:
                pass
            self.assertIsNone(self.proxy.poll(), (self.dir / 'log').read_text())
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)

    def end(self):
        self.proxy.kill()
        self.proxy.wait()
        self.log.close()

    def ask(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=120)
        try:
            connection.request(method, path, json.dumps(body) if body else None,
                               {'Content-Type': 'application/json', **dict(headers)})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def served_by(self, body, **headers):
        status, found, text = self.ask('POST', '/v1/chat/completions', body, headers)
        self.assertEqual(status, 200, text)
        self.assertEqual(json.loads(text)['model'], found['X-Served-By'])
        return found['X-Served-By']

    def test_the_file_as_it_is(self):
        subprocess.run([HAPROXY, '-c', '-f', CONFIG], check=True, capture_output=True, timeout=60)

    def test_conversations_stay_and_spread(self):
        self.start()
        self.assertEqual(self.ask('GET', '/v1/models')[0], 200)  # the key is put in
        # By the session, whatever is said.
        for header in ('session_id', 'X-Session-Id', 'x-session-affinity'):
            self.assertEqual(len({self.served_by(chat(f'Hello {i}'), **{header: 'abc'}) for i in range(5)}), 1, header)
        self.assertEqual(len({self.served_by(chat(f'Hello {i}', user='somebody')) for i in range(5)}), 1)
        # By its beginning: later turns go where the first went. Different conversations use all machines.
        used = collections.Counter()
        for i in range(9):
            first = chat(f'This is conversation {i}.')
            home = self.served_by(first)
            used[home] += 1
            for turn in range(3):
                first['messages'] += [{'role': 'assistant', 'content': f'Answer {turn}'},
                                      {'role': 'user', 'content': f'Question {turn}'}]
                self.assertEqual(self.served_by(first), home)
        self.assertEqual(sorted(used), ['quern1', 'quern2', 'quern3'])
        # A machine that leaves gives its conversations to others, and they stay there.
        home = self.served_by(chat('Hello'), session_id='moving')
        self.servers[int(home[-1]) - 1].kill()
        new = {self.served_by(chat('Hello'), session_id='moving') for _ in range(4)}
        self.assertEqual(len(new), 1)
        self.assertNotEqual(new, {home})
        self.assertEqual(self.ask('GET', '/health')[0], 200)
        for server in self.servers:
            if server.process.poll() is None:
                server.kill()
        for _ in range(200):
            if self.ask('GET', '/health')[0] == 503:
                break
            time.sleep(0.05)
        else:
            self.fail('still healthy without a machine')

    def test_a_loading_machine_gets_nothing(self):
        loading = self.quern(hold_loading=True)
        self.start()
        time.sleep(2.5)  # past the first health checks
        self.assertEqual({self.served_by(chat(f'Hello {i}')) for i in range(8)}, {'quern2', 'quern3'})
        loading.release()
        loading.wait_ready()
        for _ in range(200):
            if self.served_by(chat(f'Once more {time.monotonic()}')) == 'quern1':
                break
            time.sleep(0.05)
        else:
            self.fail('it is ready and gets nothing')

    def test_a_full_queue_sends_on(self):
        self.start('--parallel', '1', '--queue', '1')
        # Straight to one machine, past the proxy, until it refuses; then through the proxy with a session that lives there.
        home = self.served_by(chat('Hello'), session_id='full')
        busy = self.servers[int(home[-1]) - 1]
        stop = threading.Event()

        def press():
            while not stop.is_set():
                try:
                    busy.post('/v1/chat/completions', {**STORY, 'max_tokens': 300}, {'Authorization': f'Bearer {KEY}'})
                except OSError:
                    time.sleep(0.001)
        threads = [threading.Thread(target=press) for _ in range(6)]
        for thread in threads:
            thread.start()
        try:
            used = {self.served_by(chat('Hello'), session_id='full') for _ in range(12)}
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertTrue(used)  # none was refused: served_by checks that; where they went is the load's affair

    def test_nothing_is_lost_that_had_not_begun(self):
        self.start()
        results, begun, lock = collections.Counter(), threading.Event(), threading.Lock()
        failures = []

        def one(i):
            streamed = i % 2 == 0
            body = {**STORY, 'seed': i, 'max_tokens': 120, 'stream': streamed}
            connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=120)
            started = False
            try:
                connection.request('POST', '/v1/chat/completions', json.dumps(body),
                                   {'Content-Type': 'application/json', 'session_id': str(i)})
                answer = connection.getresponse()
                started = answer.status == 200 and streamed
                text = answer.read()
                whole = answer.status == 200 and (text.endswith(b'data: [DONE]\n\n') if streamed
                                                  else json.loads(text)['choices'][0]['message'])
                kind = 'whole' if whole else 'cut' if started else 'lost'
                detail = (answer.status, text[-200:])
            except (OSError, http.client.HTTPException, ValueError) as error:
                kind, detail = 'cut' if started else 'lost', repr(error)
            finally:
                connection.close()
            with lock:
                results[kind] += 1
                if kind != 'whole':
                    failures.append((kind, i, detail))
                if results.total() == 20:
                    begun.set()

        numbers = iter(range(120))

        def worker():
            while True:
                with lock:
                    i = next(numbers, None)
                if i is None:
                    return
                one(i)
        threads = [threading.Thread(target=worker) for _ in range(18)]
        for thread in threads:
            thread.start()
        self.assertTrue(begun.wait(100))
        self.servers[1].kill()  # in the middle of the load, with SIGKILL
        for thread in threads:
            thread.join()
        self.assertEqual(results['lost'], 0, failures)
        self.assertEqual(results.total(), 120)
        self.assertLessEqual(results['cut'], 4, failures)  # no more than it computed at the time
        counts = [len(re.findall('POST /v1/chat/completions 200', server.log)) for server in self.servers]
        self.assertTrue(all(counts), counts)  # it had its share


if __name__ == '__main__':
    unittest.main(verbosity=2)
