#!/usr/bin/env python3
"""scripts/systemd/local-llm.*: systemd-analyze accepts them, the exposure is low, and what the operator was promised stands
in them.

Without systemd-analyze it is skipped."""
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
from sandbox import Unit  # noqa: E402

UNITS = Path(__file__).resolve().parents[2] / 'scripts/systemd'
MOST_EXPOSURE = 1.5


def analyze(*args):
    return subprocess.run(['systemd-analyze', '--no-pager', *args], capture_output=True, text=True, timeout=120)


@unittest.skipUnless(shutil.which('systemd-analyze'), 'systemd-analyze is not installed')
class Units(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix='quern-units-')
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.system = self.root / 'etc/systemd/system'
        self.system.mkdir(parents=True)
        for unit in UNITS.glob('local-llm.*'):
            shutil.copy(unit, self.system)
        # What every system has, so that dependencies can be followed; and a program where the unit expects one.
        vendor = next(p for p in (Path('/usr/lib/systemd/system'), Path('/lib/systemd/system')) if p.is_dir())
        shutil.copytree(vendor, self.root / 'usr/lib/systemd/system', symlinks=True)
        (self.root / 'lib').symlink_to('usr/lib')
        (self.root / 'opt/quern').mkdir(parents=True)
        shutil.copy('/bin/true', self.root / 'opt/quern/quern-server')

    def verify(self, *units):
        run = analyze('verify', f'--root={self.root}', '--man=no', *units)
        ours = [line for line in (run.stdout + run.stderr).splitlines() if 'local-llm' in line]
        return run.returncode, ours

    def test_verify(self):
        for unit in ('local-llm.service', 'local-llm.socket'):
            with self.subTest(unit=unit):
                self.assertEqual(self.verify(unit)[1], [])

    def test_verify_would_notice(self):
        path = self.system / 'local-llm.service'
        path.write_text(path.read_text().replace('MemoryMax=3G', 'MemoryMaximum=3G').replace('ProtectHome=yes',
            'ProtectHome=surely'))
        ours = ' '.join(self.verify('local-llm.service')[1])
        self.assertIn('MemoryMaximum', ours)
        self.assertIn('surely', ours)

    def test_exposure(self):
        run = analyze('security', '--offline=true', str(self.system / 'local-llm.service'))
        exposure = float(re.search(r'Overall exposure level for \S+: ([\d.]+)', run.stdout).group(1))
        self.assertLessEqual(exposure, MOST_EXPOSURE, run.stdout)

    def test_promises(self):
        unit = Unit(UNITS / 'local-llm.service')
        for key, value in {'Type': 'notify', 'Restart': 'always', 'MemoryMax': '3G', 'MemoryHigh': '2560M', 'CPUQuota': '200%',
                           'DynamicUser': 'yes',
                           'StartLimitBurst': '10', 'Wants': 'local-llm.socket', 'WatchdogSec': '60s', 'LimitMEMLOCK': '3G',
                           'CacheDirectory': 'local-llm', 'IPAddressDeny': 'any',
                           'IPAddressAllow': 'localhost', 'MemoryDenyWriteExecute': 'yes', 'ProtectSystem': 'strict'}.items():
            self.assertEqual(unit.one(key), value, key)
        command = unit.command({})
        self.assertEqual(command[0], '/opt/quern/quern-server')
        self.assertEqual(command[command.index('--host') + 1], '127.0.0.1')
        port = command[command.index('--port') + 1]
        self.assertEqual(Unit(UNITS / 'local-llm.socket').values['ListenStream'], [f'127.0.0.1:{port}'])


if __name__ == '__main__':
    unittest.main(verbosity=2)
