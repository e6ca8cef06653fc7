#!/usr/bin/env python3
"""scripts/count-instructions.py, on loops whose numbers are known and on the kernels as they were built.

Arguments: x86_64 or aarch64, objdump, the archives of the kernels' levels; after "--" the compiler, which assembles known
loops."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

ARCHITECTURE, OBJDUMP = sys.argv[1:3]
ARCHIVES, COMPILER = sys.argv[3:sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1:]
SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/count-instructions.py")
QUANTISED = ["q4_0", "q4_k", "q5_0", "q5_k", "q6_k", "q8_0"]

# A loop within a loop, with a way around two of its instructions; then one that prefetches, and is entered in its middle.
KNOWN = {
    "x86_64": """
        .text
        .globl matmul_q4_k
        matmul_q4_k:
        1:  movl $4, %ecx
        2:  vmovdqu (%rdi), %ymm0
            vpmaddubsw (%rdi), %ymm0, %ymm2
            testl %eax, %eax
            je 3f
            vpaddw %ymm1, %ymm2, %ymm2
            vpaddw %ymm1, %ymm2, %ymm2
        3:  decl %ecx
            jne 2b
            vmovdqu %ymm2, (%rsi)
            decl %edx
            jne 1b
            jmp 5f
        4:  vpmaddubsw %xmm0, %xmm0, %xmm0
            vmovdqu %xmm0, (%rsi,%rdx)
        5:  prefetcht1 64(%rdi)
            decl %ecx
            jne 4b
            ret
        """,
    "aarch64": """
        .arch armv8.2-a+dotprod
        .text
        .globl matmul_q4_k
        matmul_q4_k:
        1:  mov w4, #4
        2:  ldr q0, [x0]
            sdot v2.4s, v0.16b, v1.4b[2]
            smull2 v3.8h, v0.16b, v1.16b
            cbz w3, 3f
            add v2.4s, v2.4s, v1.4s
            add v2.4s, v2.4s, v1.4s
        3:  subs w4, w4, #1
            b.ne 2b
            str q2, [x1]
            subs w2, w2, #1
            b.ne 1b
            b 5f
        4:  sdot v2.2s, v0.8b, v1.8b
            str q2, [x1, x2]
        5:  prfm pldl2keep, [x0, #64]
            subs w4, w4, #1
            b.ne 4b
            ret
        """,
}
EXPECTED = {
    "x86_64": {
        "many tokens": dict(load=1, store=0, multiply=1, vector=2, scalar=4, instructions=8, multiply_adds=32, loops_around=1),
        "one token": dict(load=1, store=1, multiply=1, vector=0, scalar=2, instructions=5, multiply_adds=16, loops_around=0),
    },
    "aarch64": {
        "many tokens": dict(load=1, store=0, multiply=2, vector=2, scalar=3, instructions=8, multiply_adds=24, loops_around=1),
        "one token": dict(load=1, store=1, multiply=1, vector=0, scalar=2, instructions=5, multiply_adds=8, loops_around=0),
    },
}


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=200)


def count(*arguments):
    done = run("--objdump", OBJDUMP, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class KnownLoops(unittest.TestCase):
    def test_counts(self):
        with tempfile.TemporaryDirectory() as folder:
            source, object_file = os.path.join(folder, "known.s"), os.path.join(folder, "known.o")
            with open(source, "w", encoding="ascii") as f:
                f.write(KNOWN[ARCHITECTURE])
            subprocess.run([*COMPILER, "-c", source, "-o", object_file], check=True)
            found = {loop["loop"]: loop for loop in count(object_file)}
        self.assertEqual(found.keys(), EXPECTED[ARCHITECTURE].keys())
        for name, numbers in EXPECTED[ARCHITECTURE].items():
            self.assertEqual({key: found[name][key] for key in numbers}, numbers, name)
            self.assertEqual(found[name]["per_multiply_add"], numbers["instructions"] / numbers["multiply_adds"])


class Kernels(unittest.TestCase):
    def test_every_level(self):
        self.assertTrue(ARCHIVES)
        for archive in ARCHIVES:
            loops = count(archive)
            for weights in QUANTISED:
                with self.subTest(archive=archive, weights=weights):
                    mine = {loop["loop"]: loop for loop in loops if loop["type"] == weights}
                    # A level of tiles (AMX) has a single token's kernel from the level below.
                    names = {"many tokens"} if "_amx" in archive else {"one token", "many tokens"}
                    self.assertEqual(mine.keys(), names)
                    for loop in mine.values():
                        # Whole groups of 32 columns of 8 rows at least: nothing was overlooked, or taken for more.
                        self.assertEqual(loop["multiply_adds"] % 256, 0)
                        kinds = sum(loop[kind] for kind in ("load", "store", "multiply", "vector", "scalar"))
                        self.assertEqual(kinds, loop["instructions"])
                        self.assertGreater(loop["load"], 0)
                    # Many tokens share what is unpacked and loaded: that is what the loop is for.
                    if "one token" in mine:
                        self.assertLess(mine["many tokens"]["per_multiply_add"], mine["one token"]["per_multiply_add"])
            for weights in ("f32", "f16", "bf16"):
                with self.subTest(archive=archive, weights=weights):
                    self.assertIn("many tokens", [loop["loop"] for loop in loops if loop["type"] == weights])

    def test_table(self):
        rows = count("--all", ARCHIVES[0])
        self.assertGreater(len(rows), len(count(ARCHIVES[0])))
        done = run("--objdump", OBJDUMP, "--all", ARCHIVES[0])
        self.assertEqual(done.returncode, 0)
        self.assertEqual(len(done.stdout.splitlines()), len(rows) + 1)


class Mistakes(unittest.TestCase):
    def refuses(self, sentence, *arguments):
        done = run(*arguments)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(sentence, done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_refusals(self):
        self.refuses("no such program", "--objdump", "/nonexistent/objdump", ARCHIVES[0])
        self.refuses("failed, see above", "--objdump", OBJDUMP, "/nonexistent/file.o")
        self.refuses("failed, see above", "--objdump", OBJDUMP, SCRIPT)
        other = os.path.join(os.path.dirname(ARCHIVES[0]), "libgguf.a")
        self.refuses("no loop that multiplies was found", "--objdump", OBJDUMP, other)

    def test_help(self):
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("--objdump", done.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
