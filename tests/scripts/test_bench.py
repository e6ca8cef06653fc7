#!/usr/bin/env python3
"""quern-bench and dump-logits as their users meet them: what they print, and how they fail.

Arguments: the two programs. Runs in the project's root."""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import unittest

BENCH, DUMP = (os.path.abspath(p) for p in sys.argv[1:3])
MODEL = "models/quern-tiny-q4_k_m.gguf"
N_VOCAB = 8192
QUICK = ["-p", "40", "-n", "6", "-r", "3"]


def run(*command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=240, **more)


class Bench(unittest.TestCase):
    def bench(self, *arguments, **more):
        return run(BENCH, *arguments, **more)

    def check_series(self, s, unit):
        self.assertEqual(s["unit"], unit)
        self.assertEqual(len(s["values"]), 3)
        self.assertGreater(s["min"], 0)
        self.assertEqual(s["min"], min(s["values"]))
        self.assertEqual(s["max"], max(s["values"]))
        self.assertEqual(s["median"], statistics.median(s["values"]))

    def test_json(self):
        done = self.bench("-m", MODEL, *QUICK, "-t", "2", "-d", "33", "--json")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        r = json.loads(done.stdout)
        self.assertEqual(list(r), ["version", "model", "machine", "repetitions", "batch_size", "read", "prefill", "decode"])
        self.assertEqual(r["model"]["name"], "quern-tiny")
        self.assertEqual(r["model"]["source"], MODEL)
        self.assertIs(r["model"]["synthetic"], False)
        self.assertGreater(r["model"]["n_params"], 8_000_000)
        self.assertEqual(r["machine"]["threads"], 2)
        self.assertTrue(r["machine"]["cpu"])
        self.check_series(r["read"], "bytes/s")
        self.check_series(r["prefill"], "tokens/s")
        self.check_series(r["decode"], "tokens/s")
        self.assertEqual((r["prefill"]["tokens"], r["decode"]["tokens"], r["decode"]["depth"]), (40, 6, 33))
        # f16 keys and values of 8 layers, 2 heads, 64 dimensions; 34 to 39 positions, 36.5 on average
        self.assertEqual(r["decode"]["kv_bytes_per_token"], int(8 * 2 * 2 * 64 * 2 * 36.5))
        # the embedding is the head of this model: a step reads all matrices, and hardly less than the whole file
        self.assertGreater(r["decode"]["weight_bytes_per_token"], 0.95 * r["model"]["tensor_bytes"])
        self.assertLessEqual(r["decode"]["weight_bytes_per_token"], r["model"]["tensor_bytes"])
        step = r["decode"]["weight_bytes_per_token"] + r["decode"]["kv_bytes_per_token"]
        self.assertTrue(math.isclose(r["decode"]["limit"], r["read"]["median"] / step, rel_tol=1e-6))
        self.assertTrue(math.isclose(r["decode"]["percent_of_limit"], 100 * r["decode"]["median"] / r["decode"]["limit"], rel_tol=1e-6))

    def test_parts(self):
        r = json.loads(self.bench("-m", MODEL, "-p", "0", "-n", "3", "-r", "1", "--json").stdout)
        self.assertIsNone(r["prefill"])
        self.assertIsNotNone(r["decode"])
        r = json.loads(self.bench("-m", MODEL, "-p", "3", "-n", "0", "-r", "1", "--json", "--no-mmap").stdout)
        self.assertIsNone(r["decode"])
        self.assertIsNotNone(r["prefill"])

    def test_table(self):
        done = self.bench("-m", MODEL, *QUICK)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        for part in (b"quern-tiny", b"median", b"prefill 40", b"decode 6", b"memory read", b"GB/s", b"Decode reaches", b"threads", b"kernels"):
            self.assertIn(part, done.stdout)

    def test_odd_names(self):
        # A path with a quote, a backslash, a line feed and a byte that is no UTF-8 must not break the JSON.
        with tempfile.TemporaryDirectory() as folder:
            path = os.fsencode(folder) + b'/a "model" \\ of\nmine \xff\xc3\xa9.gguf'
            shutil.copy(MODEL, path)
            done = self.bench("-m", path, "-p", "2", "-n", "2", "-r", "1", "--json")
            source = json.loads(done.stdout.decode("utf-8"))["model"]["source"]
            self.assertEqual(source, folder + '/a "model" \\ of\nmine \ufffd\u00e9.gguf')

    def test_level(self):
        done = self.bench("-m", MODEL, "-p", "8", "-n", "2", "-r", "1", "--json", env={**os.environ, "QUERN_CPU": "scalar"})
        self.assertEqual(json.loads(done.stdout)["machine"]["kernel_level"], "scalar")
        done = self.bench("-m", MODEL, env={**os.environ, "QUERN_CPU": "abacus"})
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"abacus", done.stderr)

    def test_help_and_version(self):
        done = self.bench("--help")
        self.assertEqual(done.returncode, 0)
        for flag in (b"--model", b"--synthetic", b"--prompt", b"--gen", b"--depth", b"--threads", b"--batch-size", b"--repetitions", b"--json"):
            self.assertIn(flag, done.stdout)
        done = self.bench("--version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, rb"quern-bench \d+\.\d+")
        self.assertIn(b"kernels", done.stdout)

    def test_wrong_usage(self):
        for arguments, part in (
            ([], b"which model"), (["-m", MODEL, "--synthetic", "0.5b"], b"exclude"), (["-m", MODEL, "-p", "x"], b"-p x"), (["-m", MODEL, "-n", "-1"], b"-n -1"),
            (["-m", MODEL, "-r", "0"], b"-r 0"), (["-m", MODEL, "-t", "99999999999999999999"], b"-t 9"), (["-m", MODEL, "-p", "0", "-n", "0"], b"nothing"),
            ([MODEL], MODEL.encode()), (["--frobnicate"], b"frobnicate"), (["-m"], b"'m'"),
        ):
            done = self.bench(*arguments)
            self.assertEqual((done.returncode, done.stdout), (2, b""), arguments)
            self.assertIn(part, done.stderr)

    def test_failures(self):
        for arguments, part in (
            (["-m", "/nonexistent.gguf"], b"nonexistent"), (["-m", "models/quern-tiny.md"], b"quern-tiny.md"), (["--synthetic", "7b"], b"7b"),
            (["-m", MODEL, "-p", "1025"], b"1025"), (["-m", MODEL, "-d", "1000", "-n", "25"], b"1000"),
        ):
            done = self.bench(*arguments)
            self.assertEqual((done.returncode, done.stdout), (1, b""), arguments)
            self.assertIn(part, done.stderr)
        with open("/dev/full", "wb") as full:
            done = subprocess.run([BENCH, "-m", MODEL, "-p", "1", "-n", "1", "-r", "1"], stdout=full, stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"cannot write", done.stderr)


class Dump(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.ids, self.out = folder.name + "/ids", folder.name + "/out.f32"

    def dump(self, ids, *arguments, **more):
        with open(self.ids, "w") as f:
            f.write(ids)
        done = run(DUMP, MODEL, self.ids, self.out, *arguments, **more)
        if done.returncode:
            self.assertFalse(os.path.exists(self.out))
            return done.stderr
        with open(self.out, "rb") as f:
            return f.read()

    def test_every_position(self):
        ids = " ".join(str(i * 37 % 8000) for i in range(70)) + "\n"
        logits = self.dump(ids)
        self.assertEqual(len(logits), 70 * N_VOCAB * 4)
        for more in (["--batch", "1"], ["--batch", "7"], ["--batch", "70"], ["--batch", "1000"]):
            self.assertEqual(self.dump(ids, *more), logits, more)
        self.assertEqual(self.dump(ids.replace(" ", "\n\t ")), logits)
        # what comes later changes nothing before it
        self.assertEqual(self.dump(" ".join(ids.split()[:20])), logits[: 20 * N_VOCAB * 4])
        with open(self.ids, "w") as f:
            f.write(ids)
        with open(self.ids) as f:
            self.assertEqual(run(DUMP, MODEL, "-", self.out, stdin=f).returncode, 0)
        with open(self.out, "rb") as f:
            self.assertEqual(f.read(), logits)

    def test_failures(self):
        self.assertIn(b"no ids", self.dump(""))
        self.assertIn(b'"x"', self.dump("1 2 x"))
        self.assertIn(b'"1.5"', self.dump("1.5"))
        self.assertIn(b"8192", self.dump("8192"))
        self.assertIn(b"-1", self.dump("-1"))
        self.assertIn(b"99999999999999999999", self.dump("99999999999999999999").replace(b"9223372036854775807", b"99999999999999999999"))
        self.assertIn(b"1024", self.dump("1 " * 1025))
        self.assertIn(b"Usage", self.dump("1", "--batch", "0"))
        self.assertIn(b"Usage", self.dump("1", "--batch", "1x"))
        self.assertIn(b"Usage", self.dump("1", "--batch"))
        self.assertEqual(run(DUMP).returncode, 2)
        self.assertIn(b"cannot open", run(DUMP, MODEL, "/nonexistent", self.out).stderr)
        self.assertIn(b"cannot create", run(DUMP, MODEL, self.ids, "/nonexistent/out").stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
