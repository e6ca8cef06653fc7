#!/usr/bin/env python3
"""setup-swap.sh, setup-firewall.sh and backup-models.sh in throw-away folders. What would change this machine (swapon,
sysctl, ufw and the places where SSH ports are found) is replaced by programs that write down how they were called."""
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
from file_server import FileServer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / 'scripts'


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='quern-setup-')
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        self.bin = self.dir / 'bin'
        self.bin.mkdir()
        self.calls = self.dir / 'calls'
        self.calls.write_text('')

    def tool(self, name, text=''):
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.calls}"\n{text}\n')
        path.chmod(0o755)

    def called(self):
        return self.calls.read_text().splitlines()

    def script(self, name, *arguments, expect=0, **env):
        base = {k: v for k, v in os.environ.items() if not k.startswith(('SSH_', 'QUERN_'))}
        run = subprocess.run([SCRIPTS / name, *map(str, arguments)], capture_output=True, text=True, timeout=120,
                             stdin=subprocess.DEVNULL, cwd='/',
                             env={**base, 'PATH': f'{self.bin}:{os.environ["PATH"]}:/usr/sbin:/sbin', **env})
        self.assertEqual(run.returncode, expect, run.stdout + run.stderr)
        return run


class Swap(Case):
    def setUp(self):
        super().setUp()
        self.root = self.dir / 'root'
        (self.root / 'etc').mkdir(parents=True)
        (self.root / 'proc').mkdir()
        self.swaps = self.root / 'proc' / 'swaps'
        self.fstab = self.root / 'etc' / 'fstab'
        self.sysctl = self.root / 'etc' / 'sysctl.d' / '60-local-llm-swap.conf'
        self.header = 'Filename\tType\tSize\tUsed\tPriority\n'
        self.swaps.write_text(self.header)
        self.fstab.write_text('UUID=1 / ext4 defaults 0 1')  # without a line feed at its end
        self.file = self.dir / 'swapfile'
        self.tool('swapon', f'printf "%s\\tfile\\t1\\t0\\t-2\\n" "$1" >>"{self.swaps}"')
        self.tool('sysctl')
        self.filesystem('ext2/ext3')

    def filesystem(self, name):
        """stat, but for the kind of file system, which is this machine's affair."""
        self.tool('stat', f'[ "$1" = -f ] && {{ echo {name}; exit; }}\nexec {shutil.which("stat")} "$@"')

    def swap(self, *flags, expect=0):
        return self.script('setup-swap.sh', '--file', self.file, '--size', '8', *flags, expect=expect, QUERN_ROOT=str(self.root))

    def type_of(self, path):
        return subprocess.run(['/usr/sbin/blkid', '-p', '-o', 'value', '-s', 'TYPE', path], capture_output=True,
                              text=True).stdout.strip()

    def test_sets_up_and_changes_nothing_the_second_time(self):
        self.swap()
        self.assertEqual(self.file.stat().st_size, 8 << 20)
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.file.stat().st_blocks * 512 >= 8 << 20, True)  # no holes: the kernel refuses those
        self.assertEqual(self.type_of(self.file), 'swap')
        self.assertEqual(self.fstab.read_text(), f'UUID=1 / ext4 defaults 0 1\n{self.file} none swap sw 0 0\n')
        self.assertEqual(self.sysctl.read_text(), 'vm.swappiness = 10\n')
        self.assertIn(f'swapon {self.file}', self.called())
        self.assertIn('sysctl -q -w vm.swappiness=10', self.called())
        before = (self.file.stat().st_mtime_ns, self.fstab.read_text())
        self.calls.write_text('')
        self.assertIn('in use already', self.swap().stderr)
        self.assertEqual((self.file.stat().st_mtime_ns, self.fstab.read_text()), before)
        self.assertNotIn(f'swapon {self.file}', self.called())
        # After a reboot that lost fstab's line, say: the file is there, switched off.
        self.swaps.write_text(self.header)
        self.swap()
        self.assertEqual((self.file.stat().st_mtime_ns, self.fstab.read_text()), before)
        self.assertIn(f'swapon {self.file}', self.called())
        self.assertFalse((self.dir / 'swapfile.part').exists())

    def test_another_size(self):
        self.swap()
        self.assertIn('swapoff', self.swap('--size', '4M', expect=1).stderr)  # in use
        self.swaps.write_text(self.header)
        self.swap('--size', '4M')
        self.assertEqual(self.file.stat().st_size, 4 << 20)

    def test_dry_run_changes_nothing(self):
        run = self.swap('--dry-run', '--swappiness', '1')
        self.assertFalse(self.file.exists())
        self.assertFalse(self.sysctl.exists())
        self.assertNotIn('swapfile', self.fstab.read_text())
        self.assertEqual([call for call in self.called() if not call.startswith('stat ')], [])
        for word in ('mkswap', f'swapon {self.file}', 'none swap sw', 'vm.swappiness=1'):
            self.assertIn(word, run.stdout)

    def test_refuses(self):
        self.filesystem('btrfs')
        self.assertIn('btrfs', self.swap(expect=1).stderr)
        for name in ('tmpfs', 'zfs', 'nfs', 'overlayfs'):
            self.filesystem(name)
            self.assertIn(name, self.swap(expect=1).stderr)
        self.filesystem('xfs')
        self.assertIn('not enough disk', self.swap('--size', '9000G', expect=1).stderr)
        self.tool('df', f'{shutil.which("df")} "$@" | awk \'NR == 2 {{ $4 = (2048 + 7) * 1024 }} {{ print }}\'')
        self.assertIn('not enough disk', self.swap(expect=1).stderr)
        self.file.write_text('somebody\'s data')
        self.assertIn('not a swap file', self.swap(expect=1).stderr)
        self.assertEqual(self.file.read_text(), 'somebody\'s data')
        self.file.unlink()
        self.file.symlink_to('/etc/passwd')
        self.assertIn('symbolic link', self.swap(expect=1).stderr)
        self.assertNotIn('swap', self.fstab.read_text())
        for flags in (['--size', '0'], ['--size', '4T'], ['--swappiness', '101'], ['--file', 'relative'],
                      ['--file', '/with space'], ['--what'], ['--size']):
            self.swap(*flags, expect=1)

    def test_a_failure_leaves_nothing_half_done(self):
        self.tool('mkswap', 'exit 1')
        self.swap(expect=1)
        self.assertEqual([path.name for path in self.dir.glob('swapfile*')], [])
        self.assertNotIn('swapfile', self.fstab.read_text())


class Firewall(Case):
    def setUp(self):
        super().setUp()
        self.state = self.dir / 'ufw-state'
        self.ufw('inactive')
        for name in ('ss', 'sshd', 'systemctl'):
            self.tool(name, 'exit 1')

    def ufw(self, status, rules=''):
        self.state.write_text(f'Status: {status}\n{rules}')
        self.tool('ufw', f'''case "$*" in
"status"*) cat "{self.state}" ;;
"prepend deny "*) printf '%-26s DENY        Anywhere\\n' "$3" >>"{self.state}" ;;
"allow "*) printf '%-26s ALLOW       Anywhere\\n' "$2" >>"{self.state}" ;;
"--force enable") sed -i 's/inactive/active/' "{self.state}" ;;
*) exit 1 ;;
esac''')

    def changes(self):
        return [call for call in self.called() if call.startswith('ufw ') and not call.startswith('ufw status')]

    def firewall(self, *flags, expect=0, **env):
        return self.script('setup-firewall.sh', *flags, expect=expect, QUERN_TEST='1', **env)

    def test_shows_and_then_does(self):
        self.tool('ss', '''echo 'LISTEN 0 128 0.0.0.0:2222 0.0.0.0:* users:(("sshd",pid=7,fd=3))'
echo 'LISTEN 0 128 [::]:2222 [::]:* users:(("sshd",pid=7,fd=4))'
echo 'LISTEN 0 128 127.0.0.1:8765 0.0.0.0:* users:(("quern-server",pid=8,fd=4))' ''')
        self.tool('sshd', 'printf "port 22\\naddressfamily any\\n"')
        self.tool('systemctl', 'echo "Listen=[::]:2200 (Stream)"')
        expected = ['ufw allow 22/tcp', 'ufw allow 2200/tcp', 'ufw allow 2222/tcp', 'ufw allow 22022/tcp',
                    'ufw prepend deny 8765', 'ufw --force enable']
        run = self.firewall(SSH_CONNECTION='203.0.113.9 50000 198.51.100.1 22022')
        self.assertEqual(run.stdout.splitlines(), expected)
        self.assertEqual(self.changes(), [])
        run = self.firewall('--yes', SSH_CONNECTION='203.0.113.9 50000 198.51.100.1 22022')
        self.assertEqual(self.changes(), expected)
        self.assertIn('Done', run.stderr)

    def test_an_active_firewall_is_only_added_to(self):
        self.ufw('active', '22/tcp   ALLOW   Anywhere\n')
        self.firewall('--yes', '--port', '9000')
        self.assertEqual(self.changes(), ['ufw prepend deny 9000'])

    def test_does_not_lock_anyone_out(self):
        self.assertIn('could lock you out', self.firewall('--yes', expect=1).stderr)
        self.assertIn('would lock you out', self.firewall('--yes', '--port', '22', '--ssh-port', '22', expect=1).stderr)
        self.assertEqual(self.changes(), [])
        self.firewall('--yes', '--ssh-port', '22')
        self.assertEqual(self.changes()[0], 'ufw allow 22/tcp')

    def test_stops_at_a_failure(self):
        self.tool('ufw', 'case "$*" in status*) echo "Status: inactive" ;; *) exit 1 ;; esac')
        self.assertIn('nothing after it was done', self.firewall('--yes', '--ssh-port', '22', expect=1).stderr)
        self.assertEqual(self.changes(), ['ufw allow 22/tcp'])

    def test_wrong_arguments(self):
        for flags in (['--port', '0'], ['--port', '70000'], ['--ssh-port', '22;reboot'], ['--port'], ['--what']):
            self.firewall(*flags, expect=1)


class Backup(Case):
    def setUp(self):
        super().setUp()
        self.data = {f'{name}.gguf': random.Random(name).randbytes(100_001) for name in ('one', 'two')}
        self.server = FileServer(self.data)
        self.addCleanup(self.server.shutdown)
        self.addCleanup(self.server.server_close)
        self.models = self.dir / 'models.txt'
        self.models.write_text('\n\n'.join(
            f'name: {file[:-5]}\nfile: {file}\nbytes: {len(data)}\nsha256: {hashlib.sha256(data).hexdigest()}\n'
            f'licence: x\nram_mb: 1\n'
            f'url: {self.server.url("good/" + file)}' for file, data in self.data.items()) + '\n')
        self.here = self.dir / 'here'
        self.here.mkdir()
        self.copy = self.dir / 'a copy'
        for file, data in self.data.items():
            (self.here / file).write_bytes(data)

    def backup(self, *arguments, expect=0):
        return self.script('backup-models.sh', *arguments, '--dir', self.here, '--models', self.models, expect=expect)

    def damage(self, path):
        data = bytearray(path.read_bytes())
        data[5000] ^= 1
        path.write_bytes(data)

    def test_verify(self):
        run = self.backup('verify')
        self.assertEqual(run.stdout.count(' ok: '), 2)
        (self.here / 'mine.gguf').write_text('x')
        self.assertIn('mine.gguf', self.backup('verify').stdout)
        self.damage(self.here / 'one.gguf')
        self.assertIn('BAD', self.backup('verify', expect=1).stdout)
        self.backup('verify', 'two')
        (self.here / 'two.gguf').unlink()
        self.assertIn('missing', self.backup('verify', 'two', expect=1).stdout)
        self.assertIn('unknown model', self.backup('verify', 'three', expect=1).stderr)

    def test_copy_and_restore(self):
        self.backup('copy', '--to', self.copy)
        for file, data in self.data.items():
            self.assertEqual((self.copy / file).read_bytes(), data)
        self.assertEqual((self.copy / 'models.txt').read_text(), self.models.read_text())
        before = (self.copy / 'one.gguf').stat().st_mtime_ns
        self.assertEqual(self.backup('copy', '--to', self.copy).stdout.count('already there'), 2)
        self.assertEqual((self.copy / 'one.gguf').stat().st_mtime_ns, before)
        # A model that went bad does not spoil its copy, and comes back from it.
        self.damage(self.here / 'one.gguf')
        (self.here / 'two.gguf').unlink()
        self.backup('copy', 'one', 'two', '--to', self.copy)
        run = self.backup('restore', 'one', 'two', '--from', self.copy)
        self.assertEqual(run.stdout.count('restored: '), 2)
        for file, data in self.data.items():
            self.assertEqual((self.here / file).read_bytes(), data)
        self.assertTrue((self.here / 'one.gguf.bad').exists())
        self.assertEqual(self.server.requests, [])

    def test_never_copies_or_restores_a_damaged_file(self):
        self.copy.mkdir()
        self.damage(self.here / 'one.gguf')
        self.assertIn('NOT COPIED', self.backup('copy', '--to', self.copy, expect=1).stdout)
        self.assertFalse((self.copy / 'one.gguf').exists())
        self.assertTrue((self.copy / 'two.gguf').exists())
        self.damage(self.copy / 'two.gguf')
        (self.here / 'two.gguf').unlink()
        self.assertIn('NOT RESTORED', self.backup('restore', 'two', '--from', self.copy, expect=1).stdout)
        self.assertFalse((self.here / 'two.gguf').exists())

    def test_restore_from_the_address(self):
        (self.here / 'one.gguf').unlink()
        self.damage(self.here / 'two.gguf')
        self.backup('restore', 'one', 'two')
        for file, data in self.data.items():
            self.assertEqual((self.here / file).read_bytes(), data)
        (self.here / 'one.gguf').unlink()
        self.assertIn('NOT RESTORED', self.backup('restore', 'one', '--url', self.server.url('status/404/x'), expect=1).stdout)
        self.backup('restore', 'one', '--url', self.server.url('good/one.gguf'))
        self.backup('verify', 'one', 'two')

    def test_wrong_arguments(self):
        for arguments in (['what'], ['copy'], ['restore'], ['restore', 'one', 'two', '--url', 'http://x/'],
                          ['restore', 'one', '--from', '/nowhere'],
                          ['copy', '--to', self.here], ['verify', '--what']):
            self.backup(*arguments, expect=1)
        self.script('backup-models.sh', expect=2)
        for name in ('backup-models.sh', 'setup-swap.sh', 'setup-firewall.sh'):
            self.assertIn('Usage:', self.script(name, '--help').stdout)


if __name__ == '__main__':
    unittest.main(verbosity=2)
