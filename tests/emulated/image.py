#!/usr/bin/env python3
"""Makes what the emulator puts into the machine's memory: kernel, its boot parameters, and an initramfs.

Usage: image.py BZIMAGE OUT_FOLDER MEMORY_MIB COMMAND_LINE NAME=FILE...

Writes kernel.bin, params.bin and initrd.bin. Each FILE is in the initramfs under NAME, executable, and so are the shared
libraries it asks for. The archive's format is Linux's "newc" cpio (Documentation/driver-api/early-userspace/buffer-format.rst);
the parameters are those of its boot protocol (Documentation/arch/x86/boot.rst and zero-page.rst)."""
import os
import re
import struct
import subprocess
import sys

PARAMS, COMMAND_LINE, INITRD = 0x90000, 0x98000, 0x10000000


def entry(name, mode, data=b'', device=(0, 0)):
    """One member of a cpio archive."""
    path = name.encode() + b'\0'
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b'070701' + b''.join(b'%08X' % field for field in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def libraries(path):
    """The shared libraries of a program, and its loader, by their absolute paths; none of a static one."""
    listing = subprocess.run(['ldd', path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    return re.findall(r'(?m)(?:^\s*|=> )(/\S+) \(0x', listing)


def initramfs(files):
    found = {}
    for name, path in files:
        found[name] = path
        for library in libraries(path) if os.access(path, os.X_OK) else ():
            found[library.lstrip('/')] = library
    folders = {'dev', 'proc', 'sys', 'tmp'}
    for name in found:
        while name := os.path.dirname(name):
            folders.add(name)
    archive = [entry(folder, 0o40755) for folder in sorted(folders)]
    archive.append(entry('dev/console', 0o20600, device=(5, 1)))
    for name, path in found.items():
        with open(path, 'rb') as file:
            archive.append(entry(name, 0o100755, file.read()))
    return b''.join(archive) + entry('TRAILER!!!', 0)


def boot_params(image, memory, command_line, initrd_size):
    """The zero page, and the command line behind it."""
    page = bytearray(COMMAND_LINE - PARAMS)
    header_end = 0x202 + image[0x201]
    page[0x1F1:header_end] = image[0x1F1:header_end]
    page[0x210] = 0xFF  # a loader without a number
    struct.pack_into('<II', page, 0x218, INITRD, initrd_size)
    struct.pack_into('<I', page, 0x228, COMMAND_LINE)
    usable, reserved = 1, 2
    ranges = [(0, 0x9FC00, usable), (0xF0000, 0x10000, reserved), (0x100000, memory - 0x100000, usable)]
    page[0x1E8] = len(ranges)
    for i, (start, size, kind) in enumerate(ranges):
        struct.pack_into('<QQI', page, 0x2D0 + 20 * i, start, size, kind)
    return bytes(page) + command_line.encode() + b'\0'


def main():
    kernel, folder, mebibytes, command_line, *rest = sys.argv[1:]
    with open(kernel, 'rb') as file:
        image = file.read()
    if image[0x202:0x206] != b'HdrS':
        sys.exit(f'image.py: {kernel} is no Linux kernel for x86')
    archive = initramfs([argument.split('=', 1) for argument in rest])
    memory = int(mebibytes) << 20
    if INITRD + len(archive) > memory:
        sys.exit(f'image.py: {len(archive)} bytes of files do not fit into {mebibytes} MiB')
    for name, data in (('initrd.bin', archive), ('params.bin', boot_params(image, memory, command_line, len(archive))),
                       ('kernel.bin', image[((image[0x1F1] or 4) + 1) * 512:])):
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(data)


main()
