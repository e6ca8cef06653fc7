#!/usr/bin/env python3
"""Corrects what Bochs 3.0 does about AMX otherwise than Intel's manual. Usage: patch-bochs.py SOURCE_FOLDER

Without these changes Linux does not switch tiles on, or loses them when it switches tasks. Each stands below with what the manual
(Intel SDM) says, names the text it replaces and how often that must be found, so that another version is refused and not half
changed."""
import os
import re
import sys

TILE_DATA = '(BX_CONST64(1) << 18)'
NM = f'''
#define CHECK_XFD() do {{ \\
  if (BX_CPU_THIS_PTR amx->xfd & {TILE_DATA}) {{ \\
    BX_CPU_THIS_PTR amx->xfd_err |= {TILE_DATA}; \\
    exception(BX_NM_EXCEPTION, 0); \\
  }} \\
}} while (0)
'''
READ = '''    case BX_MSR_IA32_XFD:
    case BX_MSR_IA32_XFD_ERROR:
      if (! BX_CPU_THIS_PTR amx) return handle_unknown_rdmsr(index, msr);
      val64 = index == BX_MSR_IA32_XFD ? BX_CPU_THIS_PTR amx->xfd : BX_CPU_THIS_PTR amx->xfd_err;
      break;
'''
WRITE = f'''    case BX_MSR_IA32_XFD:
    case BX_MSR_IA32_XFD_ERROR:
      if (! BX_CPU_THIS_PTR amx) return handle_unknown_wrmsr(index, val_64);
      if (val_64 & ~{TILE_DATA}) return false;
      (index == BX_MSR_IA32_XFD ? BX_CPU_THIS_PTR amx->xfd : BX_CPU_THIS_PTR amx->xfd_err) = val_64;
      break;
'''
CPUID_XFD = r'''\1    if (is_cpu_extension_supported(BX_ISA_AMX))
      leaf->eax |= (1<<4);
'''

# file, regular expression, replacement, how often
CHANGES = [
    # Bytes. "TDPBSSD/TDPBSUD/TDPBUSD/TDPBUUD" (volume 2): the first letter after TDPB says whether the bytes of the first source
    # are extended by their sign or by zeros, the second letter says it of the second source. Bochs extends all of them by zeros.
    ('cpu/avx/amx.cc', r'(?s)(Bit32u DPBDS[SU]\(.*?)const Bit8u xbyte\[4\] = .*?;',
     r'\1const Bit8s xbyte[4] = { Bit8s(x), Bit8s(x >> 8), Bit8s(x >> 16), Bit8s(x >> 24) };', 2),
    ('cpu/avx/amx.cc', r'(?s)(Bit32u DPBD[SU]S\(.*?)const Bit8u ybyte\[4\] = .*?;',
     r'\1const Bit8s ybyte[4] = { Bit8s(y), Bit8s(y >> 8), Bit8s(y >> 16), Bit8s(y >> 24) };', 2),

    # Extended feature disable (volume 1, 13.14). While a bit of the register IA32_XFD is set, an instruction that needs that
    # state (18: the contents of tiles) raises #NM, and the bit is set in IA32_XFD_ERR; LDTILECFG and TILERELEASE, which
    # initialise the tiles, do not. By this Linux learns of a thread's first use of a tile, and without it Linux does not switch
    # them on. Bochs has none of it.
    ('cpu/avx/amx.cc', r'(#include "amx\.h"\n)', lambda m: m[1] + NM, 1),
    ('cpu/avx/amx.cc', r'(BX_CPU_C::(?:TILELOADD|TILESTORED|TILEZERO)_\w+\(bxInstruction_c \*i\)\n\{\n)',
     r'\1  CHECK_XFD();\n', 3),
    ('cpu/avx/amx.cc', r'(BX_CPU_C::check_tiles\([^)]*\)\n\{\n)', r'\1  CHECK_XFD();\n', 1),
    ('cpu/avx/amx.h', r'AMX\(\): ', 'Bit64u xfd = 0, xfd_err = 0;\n\n  AMX(): ', 1),
    ('cpu/msr.cc', r'(#include "msr\.h"\n)', r'\1#include "avx/amx.h"\n', 1),
    ('cpu/msr.cc', r'(    case BX_MSR_XSS:\n      if )', lambda m: READ + m[1], 1),
    ('cpu/msr.cc', r'(    case BX_MSR_XSS:\n      \{)', lambda m: WRITE + m[1], 1),
    # CPUID leaf 0xD (volume 2): subleaf 1, EAX bit 4: there is XFD; subleaf of a state, ECX bit 2: it may be disabled by it.
    ('cpu/cpuid.cc', r'(      leaf->eax \|= \(1<<3\);\n)(?=\n    // EBX\[31:00\])', CPUID_XFD, 1),
    ('cpu/cpuid.cc', r'(      leaf->ecx = \(cpu->ia32_xss_suppmask & \(1 << subfunction\)\) != 0;\n)',
     r'\1      if (subfunction == 18) leaf->ecx |= 4;\n', 1),

    # Saving tiles. Volume 1, 13.6: a state is in use (XINUSE) unless it is as it was initialised; Bochs has it the other way
    # round for tiles, and never sets the number it looks at to begin with. Volume 1, 13.5: the contents have 8 tiles of 16 rows,
    # of which Bochs saves 8. "LDTILECFG" (volume 2): bytes of a row are at offset 16 + 2 t, rows at 48 + t; Bochs saves them in
    # each other's place.
    ('cpu/avx/amx.h', r'unsigned tile_use_tracker;', 'unsigned tile_use_tracker = 0;', 1),
    ('cpu/xsave.cc', r'amx->tile_use_tracker == 0', 'amx->tile_use_tracker != 0', 1),
    ('cpu/xsave.cc', r'row < BX_TILE_REGISTERS;', 'row < BX_TILE_MAX_ROWS;', 2),
    ('cpu/xsave.cc', r'(vmm16u\(8\+n\) +=.*\.)rows;', r'\1bytes_per_row;', 1),
    ('cpu/xsave.cc', r'(vmmubyte\(48\+n\) +=.*\.)bytes_per_row;', r'\1rows;', 1),

    # Code that is overwritten must not be executed as it was ("Self-modifying code", volume 3). Bochs keeps code decoded, at a
    # place that depends on its address and on the CPU's mode: with tiles switched on, 128 bytes or more from where its address
    # alone would put it. After a write it gives up its search at the end of the 128-byte lines that were written, and so misses
    # those. It must look at all of the page.
    ('cpu/icache.h', r'    if \(line_mask > mask\) break;\n', '', 1),

    # Not the CPU: images that are put into memory before the start are read as if memory were in one piece, but it is in blocks.
    ('memory/misc_mem.cc', r'(get_vector\(offset\), )size\)', r'\1size < 4096 - offset % 4096 ? size : 4096 - offset % 4096)', 1),
]


def main():
    for name, pattern, replacement, count in CHANGES:
        path = os.path.join(sys.argv[1], name)
        with open(path, encoding='utf-8') as file:
            text = file.read()
        text, n = re.subn(pattern, replacement, text)
        if n != count:
            sys.exit(f'patch-bochs.py: {name}: {pattern!r} is found {n} times, not {count}: '
                     'this is not the Bochs 3.0 it was written for')
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)


main()
