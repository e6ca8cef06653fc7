"""Real quern-servers for the tests of the scripts and configurations around them."""
import ctypes
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / 'models' / 'quern-tiny-q4_k_m.gguf'
PROGRAM = os.path.abspath(os.environ.get('QUERN_SERVER', ROOT / 'build-test' / 'quern-server'))

# From sys/ptrace.h.
TRACEME, CONT, DETACH, SETOPTIONS, O_TRACECLONE, WALL = 0, 7, 17, 0x4200, 8, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request, pid, data=0):
    if _libc.ptrace(request, pid, None, data) == -1:
        raise OSError(ctypes.get_errno(), 'ptrace')


class Quern:
    """A quern-server with the shipped model (or `model`) on a free port (or on `port`).
    hold_loading keeps it loading until release()."""

    def __init__(self, *flags, model=MODEL, port=0, ready=True, hold_loading=False, env=None):
        # A wrong key in the developer's environment must not get into the tests.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(('QUERN_API', 'LLM_', 'NOTIFY_'))} | (env or {})
        self.process = subprocess.Popen([PROGRAM, '-m', str(model), '--port', str(port), *flags], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
                                        preexec_fn=(lambda: _ptrace(TRACEME, 0)) if hold_loading else None)
        self.held = self._hold() if hold_loading else None
        self.log = ''
        self._listening = threading.Event()
        self.port = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(60):
            self.kill()
            raise RuntimeError(f'{PROGRAM} does not listen:\n{self.log}')
        if self.port is None:
            raise RuntimeError(f'{PROGRAM} ended ({self.process.wait()}):\n{self.log}')
        self.url = f'http://127.0.0.1:{self.port}'
        if ready and not hold_loading:
            self.wait_ready()

    def _hold(self):
        """The first thread that the server creates is its engine: it is stopped before its first instruction."""
        pid = self.process.pid
        os.waitpid(pid, 0)
        _ptrace(SETOPTIONS, pid, O_TRACECLONE)
        _ptrace(CONT, pid)
        while True:
            who, status = os.waitpid(-1, WALL)
            if who != pid:
                thread = who
                break
            if status >> 8 == (signal.SIGTRAP | 3 << 8):  # PTRACE_EVENT_CLONE
                thread, _ = os.waitpid(-1, WALL)
                break
            _ptrace(CONT, pid, status >> 8)
        if who == thread:
            os.waitpid(pid, WALL)
        _ptrace(DETACH, pid)
        return thread

    def release(self):
        _ptrace(DETACH, self.held)
        self.held = None

    def _read(self):
        for line in self.process.stderr:
            self.log += line
            found = re.search(r'listening.*?:(\d+)\b', line)
            if found:
                self.port = int(found[1])
                self._listening.set()
        self._listening.set()

    def wait_ready(self, seconds=60):
        end = time.monotonic() + seconds
        while self.status('/health') != 200:
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f'not ready:\n{self.log}')
            time.sleep(0.02)

    def status(self, path):
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def text(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read().decode()

    def post(self, path, body, headers=()):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(),
                                         {'Content-Type': 'application/json', **dict(headers)})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(60)
        self._reader.join(10)
        self.process.stderr.close()
        return code

    def kill(self):
        self.process.kill()
        self.process.wait(60)
        self._reader.join(10)
        self.process.stderr.close()
