"""A systemd unit's sandbox without systemd: the file system's view, capabilities and user through bubblewrap, and the system
calls through seccomp filters as systemd.exec(5) describes them, built from the unit's own lines. What needs a cgroup (memory,
CPU, IPAddressDeny) is not imitated."""
import errno
import platform
import re
import shlex
import socket
import struct
import subprocess
import tempfile

ALLOW, KILL = 0x7fff0000, 0x80000000
LOAD, EQUAL, AND, AT_LEAST, RETURN = 0x20, 0x15, 0x54, 0x35, 0x06
AUDIT_ARCH = {'x86_64': 0xc000003e, 'aarch64': 0xc00000b7}
NR, ARCH = 0, 4  # offsets in struct seccomp_data
CLONE_NEW = 0x7e020080  # CLONE_NEWTIME is not a flag of clone; the others together


def argument(n):
    return 16 + 8 * n  # the low half: both machines are little-endian


def denied(number):
    return 0x00050000 | number


def instruction(code, k, yes=0, no=0):
    return struct.pack('<HBBI', code, yes, no, k)


class Unit:
    """Sections and keys as they stand; a key given again adds a value, an empty one starts anew."""

    def __init__(self, path):
        self.values = {}
        for line in path.read_text().splitlines():
            if not line.strip() or line.lstrip()[0] in '#;[':
                continue
            key, value = line.split('=', 1)
            self.values[key] = self.values.get(key, []) + [value] if value else []

    def one(self, key, without=''):
        return (self.values.get(key) or [without])[-1]

    def yes(self, key):
        return self.one(key) == 'yes'

    def command(self, environment):
        """ExecStart= with Environment= and what /etc/default would override, as systemd.service(5) expands it."""
        variables = dict(shlex.split(v)[0].split('=', 1) for v in self.values['Environment'])
        variables.update(environment)
        words = []
        for word in shlex.split(self.one('ExecStart')):
            if re.fullmatch(r'\$\w+', word):
                words += variables[word[1:]].split()
            else:
                words.append(re.sub(r'\$\{(\w+)\}', lambda m: variables[m.group(1)], word))
        return words


def group(name):
    """The system calls of a group such as @file-system."""
    text = subprocess.run(['systemd-analyze', '--no-pager', 'syscall-filter', name], capture_output=True, text=True,
                          check=True).stdout
    names = set()
    for line in text.splitlines()[1:]:
        word = line.split('#')[0].strip()
        names |= group(word) if word.startswith('@') else {word} if word else set()
    return names


def allowed_calls(unit):
    names = set()
    for i, value in enumerate(unit.values['SystemCallFilter']):
        assert i > 0 or not value.startswith('~'), 'an allow list is expected'
        expanded = set().union(*(group(w) if w.startswith('@') else {w} for w in value.lstrip('~').split()))
        names = names - expanded if value.startswith('~') else names | expanded
    return names | group('@default')


def call_numbers():
    text = subprocess.run(['cc', '-E', '-dM', '-'], input='#include <asm/unistd.h>\n', capture_output=True, text=True,
                          check=True).stdout
    return {m.group(1): m.group(2) for m in re.finditer(r'^#define __NR_(\w+) (.+)$', text, re.M)}


class Filters:
    def __init__(self, unit):
        self.numbers = {}
        raw = call_numbers()
        for name, value in raw.items():
            while value.startswith('__NR'):
                value = raw[value.removeprefix('__NR_')]
            if value.isdigit():
                self.numbers[name] = int(value)
        self.programs = [self.allow_list(allowed_calls(unit), denied(getattr(errno, unit.one('SystemCallErrorNumber'))))]
        if unit.yes('MemoryDenyWriteExecute'):
            eperm = denied(errno.EPERM)
            self.programs += [self.on_bits('mmap', 2, 6, 6, eperm), self.on_bits('mprotect', 2, 4, 4, eperm),
                              self.on_bits('pkey_mprotect', 2, 4, 4, eperm), self.on_bits('shmat', 2, 0o100000, 0o100000, eperm)]
        families = [getattr(socket, f) for f in unit.one('RestrictAddressFamilies').split()]
        self.programs.append(self.families(families))
        if unit.yes('RestrictNamespaces'):
            self.programs += [self.always('unshare', errno.EPERM), self.always('setns', errno.EPERM),
                              self.always('clone3', errno.ENOSYS),  # its flags are in memory, which a filter cannot read
                              self.any_bit('clone', 0, CLONE_NEW, denied(errno.EPERM))]
        if unit.yes('LockPersonality'):
            self.programs.append(self.always('personality', errno.EPERM))
        if unit.yes('RestrictSUIDSGID'):
            for name, n in (('chmod', 1), ('fchmod', 1), ('fchmodat', 2), ('mkdirat', 2), ('mknodat', 2)):
                if name in self.numbers:
                    self.programs.append(self.any_bit(name, n, 0o6000, denied(errno.EPERM)))

    @staticmethod
    def begin():
        """Native calls only: another architecture ends the process."""
        head = instruction(LOAD, ARCH) + instruction(EQUAL, AUDIT_ARCH[platform.machine()], 1, 0) + instruction(RETURN, KILL)
        head += instruction(LOAD, NR)
        if platform.machine() == 'x86_64':  # the x32 calls
            head += instruction(AT_LEAST, 0x40000000, 0, 1) + instruction(RETURN, KILL)
        return head

    def allow_list(self, names, otherwise):
        program = self.begin()
        for name in sorted(names):
            if name in self.numbers:
                program += instruction(EQUAL, self.numbers[name], 0, 1) + instruction(RETURN, ALLOW)
        return program + instruction(RETURN, otherwise)

    def on_bits(self, name, n, mask, value, verdict):
        return (self.begin() + instruction(EQUAL, self.numbers[name], 0, 4) + instruction(LOAD, argument(n)) +
                instruction(AND, mask) + instruction(EQUAL, value, 0, 1) + instruction(RETURN, verdict) +
                instruction(RETURN, ALLOW))

    def any_bit(self, name, n, mask, verdict):
        return (self.begin() + instruction(EQUAL, self.numbers[name], 0, 4) + instruction(LOAD, argument(n)) +
                instruction(AND, mask) + instruction(EQUAL, 0, 1, 0) + instruction(RETURN, verdict) + instruction(RETURN, ALLOW))

    def always(self, name, number):
        return (self.begin() + instruction(EQUAL, self.numbers[name], 0, 1) + instruction(RETURN, denied(number)) +
                instruction(RETURN, ALLOW))

    def families(self, families):
        program = self.begin() + instruction(EQUAL, self.numbers['socket'], 1, 0) + instruction(RETURN, ALLOW)
        program += instruction(LOAD, argument(0))
        for family in families:
            program += instruction(EQUAL, family, 0, 1) + instruction(RETURN, ALLOW)
        return program + instruction(RETURN, denied(errno.EAFNOSUPPORT))


class Sandbox:
    """Runs commands as the unit would. binds: {path inside: (path outside, may write)}."""

    def __init__(self, unit, binds):
        for key, value in {'ProtectSystem': 'strict', 'ProtectHome': 'yes', 'PrivateTmp': 'yes', 'PrivateDevices': 'yes',
                           'NoNewPrivileges': 'yes',
                           'CapabilityBoundingSet': '', 'PrivateIPC': 'yes', 'ProtectHostname': 'yes',
                           'DynamicUser': 'yes'}.items():
            assert unit.one(key) == value, f'{key} is not what this sandbox imitates'
        self.files = []
        self.arguments = ['bwrap', '--unshare-user', '--uid', '61184', '--gid', '61184', '--unshare-ipc', '--unshare-uts',
                          '--cap-drop', 'ALL', '--die-with-parent',
                          '--tmpfs', '/', '--ro-bind', '/usr', '/usr', '--ro-bind', '/etc', '/etc']
        for link in ('bin', 'lib', 'lib64', 'sbin'):
            self.arguments += ['--symlink', f'usr/{link}', f'/{link}']
        self.arguments += ['--dev', '/dev', '--proc', '/proc', '--tmpfs', '/tmp', '--tmpfs', '/var/tmp', '--dir', '/root',
                           '--dir', '/home']
        for inside, (outside, may_write) in binds.items():
            self.arguments += ['--bind' if may_write else '--ro-bind', str(outside), inside]
        self.arguments += ['--remount-ro', '/']
        for program in Filters(unit).programs:
            file = tempfile.TemporaryFile()
            file.write(program)
            self.files.append(file)
        self.environment = {'PATH': '/usr/bin:/bin', 'CACHE_DIRECTORY': '/var/cache/' + unit.one('CacheDirectory')}

    def start(self, command, environment=None, **options):
        arguments = list(self.arguments)
        for file in self.files:
            file.seek(0)
            arguments += ['--add-seccomp-fd', str(file.fileno())]
        return subprocess.Popen([*arguments, '--', *command], env={**self.environment, **(environment or {})},
                                pass_fds=[f.fileno() for f in self.files], **options)
