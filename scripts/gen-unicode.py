#!/usr/bin/env python3
"""Writes tokenizer/unicode_tables.c and tests/data/nfc-tests.txt from the Unicode Character Database.

    scripts/gen-unicode.py            write both files
    scripts/gen-unicode.py --check    compare them with what would be written; exit 1 if they differ, 77 if there is no database

The database is Debian's package unicode-data (/usr/share/unicode); --ucd DIR names another folder with the same files.
Only the standard library is used.
"""
import argparse
import bz2
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TABLES = os.path.join(ROOT, "tokenizer", "unicode_tables.c")
NFC_TESTS = os.path.join(ROOT, "tests", "data", "nfc-tests.txt")

LIMIT = 0x110000
LETTER, NUMBER, SPACE, QC_NO, QC_MAYBE, DECOMPOSES = 1, 2, 4, 8, 16, 32
BLOCK_SHIFT = 7
HANGUL_FIRST, HANGUL_LAST = 0xAC00, 0xD7A3


def read_text(ucd, name):
    path = os.path.join(ucd, name)
    if not os.path.exists(path) and os.path.exists(path + ".bz2"):
        with bz2.open(path + ".bz2", "rt", encoding="utf-8") as f:
            return f.read()
    with open(path, encoding="utf-8") as f:
        return f.read()


def ranges(ucd, name):
    """(first, last, [fields]) of every line of a property file."""
    for line in read_text(ucd, name).splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        fields = [x.strip() for x in line.split(";")]
        first, _, last = fields[0].partition("..")
        yield int(first, 16), int(last or first, 16), fields[1:]


def load(ucd):
    flags = bytearray(LIMIT)
    ccc = bytearray(LIMIT)
    for a, b, (category,) in ranges(ucd, "extracted/DerivedGeneralCategory.txt"):
        bit = {"L": LETTER, "N": NUMBER}.get(category[0], 0)
        for c in range(a, b + 1):
            flags[c] |= bit
    for a, b, fields in ranges(ucd, "PropList.txt"):
        if fields[0] == "White_Space":
            for c in range(a, b + 1):
                flags[c] |= SPACE
    for a, b, (value,) in ranges(ucd, "extracted/DerivedCombiningClass.txt"):
        for c in range(a, b + 1):
            ccc[c] = int(value)
    excluded = set()
    for a, b, fields in ranges(ucd, "DerivedNormalizationProps.txt"):
        if fields[0] == "Full_Composition_Exclusion":
            excluded.update(range(a, b + 1))
        elif fields[0] == "NFC_QC":
            for c in range(a, b + 1):
                flags[c] |= {"N": QC_NO, "M": QC_MAYBE}[fields[1]]
    single = {}
    for line in read_text(ucd, "UnicodeData.txt").splitlines():
        fields = line.split(";")
        if fields[5] and not fields[5].startswith("<"):
            single[int(fields[0], 16)] = [int(x, 16) for x in fields[5].split()]

    def expand(c):
        return [d for part in single[c] for d in expand(part)] if c in single else [c]

    full = {c: expand(c) for c in sorted(single)}
    for c in full:
        flags[c] |= DECOMPOSES
    pairs = sorted((d[0], d[1], c) for c, d in single.items() if len(d) == 2 and c not in excluded)
    # The runtime relies on these.
    assert max(len(d) for d in full.values()) <= 4
    assert all(flags[b] & QC_MAYBE for _, b, _ in pairs), "a second half of a pair that quick check does not see"
    version = re.search(r"DerivedNormalizationProps-([0-9.]+)\.txt", read_text(ucd, "DerivedNormalizationProps.txt")).group(1)
    return version, flags, ccc, full, pairs


def rows(values, per_line, form):
    out = []
    for i in range(0, len(values), per_line):
        out.append("    " + ", ".join(form(v) for v in values[i:i + per_line]) + ",\n")
    return "".join(out)


def tables(version, flags, ccc, full, pairs):
    records, index = [], {}
    per_char = bytearray(LIMIT)
    for c in range(LIMIT):
        key = (flags[c], ccc[c])
        if key not in index:
            index[key] = len(records)
            records.append(key)
        per_char[c] = index[key]
    size = 1 << BLOCK_SHIFT
    blocks, seen, stage1 = [], {}, []
    for start in range(0, LIMIT, size):
        block = bytes(per_char[start:start + size])
        if block not in seen:
            seen[block] = len(blocks)
            blocks.append(block)
        stage1.append(seen[block])
    assert len(records) <= 256 and len(blocks) <= 65536
    stage2 = [v for block in blocks for v in block]
    pool, decompositions = [], []
    for c, d in full.items():
        decompositions.append((c, len(pool), len(d)))
        pool += d
    assert len(pool) <= 65536
    number = lambda v: str(v)
    code = lambda v: "0x%X" % v
    t = "/* Made by scripts/gen-unicode.py from the Unicode Character Database, version %s. Do not edit.\n" % version
    t += " * The data are (c) Unicode, Inc., under the Unicode License (https://www.unicode.org/license.txt). */\n"
    t += '#include "tokenizer/unicode_tables.h"\n\n'
    t += 'const char unicode_version[] = "%s";\n\n' % version
    t += "const struct unicode_record unicode_records[%d] = {\n" % len(records)
    t += rows(records, 12, lambda r: "{%d, %d}" % r) + "};\n\n"
    t += "const %s unicode_stage1[%d] = {\n" % ("unsigned short", len(stage1)) + rows(stage1, 24, number) + "};\n\n"
    t += "const unsigned char unicode_stage2[%d] = {\n" % len(stage2) + rows(stage2, 24, number) + "};\n\n"
    t += "const struct unicode_decomposition unicode_decompositions[%d] = {\n" % len(decompositions)
    t += rows(decompositions, 6, lambda d: "{0x%X, %d, %d}" % d) + "};\n"
    t += "const int unicode_n_decompositions = %d;\n\n" % len(decompositions)
    t += "const uint32_t unicode_decomposition_pool[%d] = {\n" % len(pool) + rows(pool, 14, code) + "};\n\n"
    t += "const struct unicode_pair unicode_pairs[%d] = {\n" % len(pairs)
    t += rows(pairs, 4, lambda p: "{0x%X, 0x%X, 0x%X}" % p) + "};\n"
    t += "const int unicode_n_pairs = %d;\n" % len(pairs)
    return t


def nfc_tests(ucd, version):
    """Every 'x becomes y under NFC' that NormalizationTest.txt states, without the Hangul syllables on their own and the
    single characters that stay themselves: what is not listed as a single character must stay itself."""
    known = {}
    for line in read_text(ucd, "NormalizationTest.txt").splitlines():
        line = line.split("#")[0].strip()
        if not line or line.startswith("@"):
            continue
        c1, c2, c3, c4, c5 = line.split(";")[:5]
        for source, wanted in ((c1, c2), (c2, c2), (c3, c2), (c4, c4), (c5, c4)):
            assert known.setdefault(source, wanted) == wanted
    t = "# Made by scripts/gen-unicode.py from NormalizationTest.txt of Unicode %s: " % version
    t += "source;NFC, code points in hexadecimal.\n"
    t += "# A single character that is not a source here is its own NFC.\n"
    t += "# The data are (c) Unicode, Inc., under the Unicode License (https://www.unicode.org/license.txt).\n"
    for source, wanted in known.items():
        if " " in source or source != wanted:
            first = int(source.split()[0], 16)
            if " " not in wanted and HANGUL_FIRST <= int(wanted, 16) <= HANGUL_LAST and first >= 0x1100 and int(wanted, 16) % 97:
                continue  # 11,172 syllables spelled out: a computed rule; one in 97 is enough
            t += "%s;%s\n" % (source, wanted)
    return t


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--ucd", default="/usr/share/unicode")
    args = parser.parse_args()
    if not os.path.exists(os.path.join(args.ucd, "UnicodeData.txt")):
        sys.stderr.write("gen-unicode: no Unicode Character Database in %s (Debian: apt install unicode-data)\n" % args.ucd)
        return 77 if args.check else 1
    version, *data = load(args.ucd)
    failed = 0
    for path, text in ((TABLES, tables(version, *data)), (NFC_TESTS, nfc_tests(args.ucd, version))):
        if args.check:
            with open(path, encoding="utf-8") as f:
                current = f.read()
            stated = re.search(r"(?:version|Unicode) ([0-9]+\.[0-9]+\.[0-9]+)", current)
            if current != text and stated and stated.group(1) != version:
                sys.stderr.write("gen-unicode: %s is of Unicode %s, the database here of %s; not compared\n"
                                 % (os.path.relpath(path, ROOT), stated.group(1), version))
                failed = failed or 77
            elif current != text:
                sys.stderr.write("gen-unicode: %s is not what this script makes of Unicode %s\n"
                                 % (os.path.relpath(path, ROOT), version))
                failed = 1
        else:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            sys.stderr.write("gen-unicode: %s, %d bytes\n" % (os.path.relpath(path, ROOT), len(text)))
    return failed


if __name__ == "__main__":
    sys.exit(main())
