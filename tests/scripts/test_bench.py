#!/usr/bin/env python3
"""quern-bench, dump-logits and count-drafts as their users meet them: what they print, and how they fail.

Arguments: the three programs. Runs in the project's root."""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

BENCH, DUMP, DRAFTS = (os.path.abspath(p) for p in sys.argv[1:4])
MODEL = "models/quern-tiny-q4_k_m.gguf"
N_VOCAB = 8192
QUICK = ["-p", "40", "-n", "6", "-r", "3"]


def run(*command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=240, **more)


class Bench(unittest.TestCase):
    def bench(self, *arguments, **more):
        """Reads little memory in each round: the default takes a test's time, above all under sanitizers."""
        return run(BENCH, "--read-mib", "64", *arguments, **more)

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
        self.assertEqual(list(r), ["version", "model", "machine", "repetitions", "batch_size", "read", "prefill", "decode",
                                   "sweep", "profile", "compare"])
        self.assertEqual((r["sweep"], r["profile"], r["compare"]), (None, None, None))
        self.assertEqual(r["model"]["name"], "quern-tiny")
        self.assertEqual(r["model"]["source"], MODEL)
        self.assertIs(r["model"]["synthetic"], False)
        self.assertGreater(r["model"]["n_params"], 8_000_000)
        self.assertEqual(r["machine"]["threads"], 2)
        self.assertTrue(r["machine"]["cpu"])
        self.check_series(r["read"], "bytes/s")
        self.assertEqual(r["read"]["buffer_bytes"], 64 << 20)
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
        self.assertTrue(math.isclose(r["decode"]["percent_of_limit"], 100 * r["decode"]["median"] / r["decode"]["limit"],
                                     rel_tol=1e-6))

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
        for part in (b"quern-tiny", b"median", b"prefill 40", b"decode 6", b"memory read", b"GB/s", b"Decode reaches", b"threads",
                     b"kernels"):
            self.assertIn(part, done.stdout)

    def check_point(self, p, n):
        self.assertEqual((p["unit"], len(p["values"])), ("tokens/s", n))
        self.assertTrue(0 < p["min"] <= p["median"] <= p["max"])

    def test_sweep(self):
        with tempfile.TemporaryDirectory() as folder:
            svg = folder + "/sweep.svg"
            done = self.bench("-m", MODEL, "-p", "0", "-n", "0", "-r", "2", "--sweep", "--svg", svg, "--json")
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            r = json.loads(done.stdout)
            s = r["sweep"]
            # trained for 1024 positions: longer prompts are left out, and depths at which the 32 steps do not fit
            self.assertEqual((s["context"], s["short_of_memory"], s["steps"]), (1024, False, 32))
            self.assertEqual([p["tokens"] for p in s["prefill"]], [16, 32, 64, 128, 256, 512, 1024])
            self.assertEqual([p["depth"] for p in s["decode"]], [0, 512])
            self.assertEqual([p["sequences"] for p in s["batch"]], [1, 2, 4, 8, 16])
            for p in s["prefill"] + s["decode"] + s["batch"]:
                self.check_point(p, 2)
            # what a step reads: the weights, and 16.5 positions of keys and values (8 layers, 2 heads, 64 dimensions, f16)
            # on average
            position = 8 * 2 * 2 * 64 * 2
            limits = {p["depth"]: r["read"]["median"] / p["limit"] for p in s["decode"]}
            self.assertTrue(math.isclose(limits[512] - limits[0], 512 * position, rel_tol=1e-6))
            weights = r["model"]["tensor_bytes"]
            self.assertTrue(0.95 * weights < limits[0] - 16.5 * position < 1.000001 * weights)
            for p in s["batch"]:
                step = p["sequences"] * r["read"]["median"] / p["limit"]
                self.assertTrue(math.isclose(step, limits[0] + (p["sequences"] - 1) * 16.5 * position, rel_tol=1e-6))
            tree = xml.etree.ElementTree.parse(svg)
            texts = [t.text for t in tree.iter("{http://www.w3.org/2000/svg}text")]
            for text in ("Prefill", "Decode", "Batch decode", "1024", "this run"):
                self.assertIn(text, texts)
            circles = list(tree.iter("{http://www.w3.org/2000/svg}circle"))
            self.assertEqual(len(circles), 7 + 2 + 5)
            for c in circles: # within the drawing
                self.assertTrue(0 < float(c.get("cx")) < 1080 and 90 < float(c.get("cy")) < 360)

    def test_sweep_within_context(self):
        done = self.bench("-m", MODEL, "-p", "4", "-n", "3", "-r", "1", "--sweep", "--ctx", "100")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        for part in (b"64 tokens", b"at depth 0", b"16 sequences", b"up to 100 positions", b"is 3 steps"):
            self.assertIn(part, done.stdout)
        self.assertNotIn(b"128 tokens", done.stdout)
        self.assertNotIn(b"depth 512", done.stdout)

    def test_profile(self):
        r = json.loads(self.bench("-m", MODEL, *QUICK, "-t", "2", "-d", "33", "--profile", "--json").stdout)
        model = {"embedding", "norm, quantise", "rope, cache", "attention", "swiglu, quantise", "head", "matmul Q4_K",
                 "matmul Q6_K", "waiting"}
        for name, tokens in (("prefill", 40), ("decode", 6)):
            p = r["profile"][name]
            self.assertEqual(p["tokens"], tokens)
            parts = {q["part"]: q for q in p["parts"]}
            self.assertEqual(set(parts), model)
            self.assertTrue(math.isclose(sum(q["seconds"] for q in p["parts"]), p["seconds"], rel_tol=0.02))
            for q in p["parts"]:
                self.assertTrue(math.isclose(q["share"], q["seconds"] / p["seconds"], rel_tol=1e-6))
                self.assertTrue(math.isclose(q["ms_per_token"], 1000 * q["seconds"] / tokens, rel_tol=1e-6))
        parts = {q["part"]: q for q in r["profile"]["decode"]["parts"]}
        # every weight once in every step, and all keys and values of two heads in eight layers
        read = sum(q["bytes"] for name, q in parts.items() if name.startswith("matmul") or name == "head")
        self.assertTrue(0.99 < read / (6 * r["decode"]["weight_bytes_per_token"]) < 1.01, read)
        self.assertEqual(parts["attention"]["bytes"], 6 * r["decode"]["kv_bytes_per_token"])
        # the head is computed for one row of a prefill only
        prefill = {q["part"]: q for q in r["profile"]["prefill"]["parts"]}
        self.assertEqual(prefill["head"]["multiply_adds"], parts["head"]["multiply_adds"] / 6)
        # 4 heads of 64 dimensions, scores and values: 40 rows see 1 to 40 positions, but in the last layer only the last
        # row goes on
        self.assertEqual(prefill["attention"]["multiply_adds"], 4 * 2 * 64 * (7 * 40 * 41 // 2 + 40))
        done = self.bench("-m", MODEL, *QUICK, "--profile")
        for part in (b"in prefill 40", b"in decode 6 at 0", b"matmul Q4_K", b"waiting", b"share", b"GB/s"):
            self.assertIn(part, done.stdout)

    def test_compare(self):
        with tempfile.TemporaryDirectory() as folder:
            path, arguments = folder + "/then.json", ["-m", MODEL, "-p", "40", "-n", "6", "-r", "1", "-t", "2", "--profile",
                                                      "--sweep", "--ctx", "64"]
            then = json.loads(self.bench(*arguments, "--json").stdout)

            def compare(change, *more, json_too=True):
                run = json.loads(json.dumps(then))
                change(run)
                with open(path, "w") as f:
                    json.dump(run, f)
                done = self.bench(*arguments, "--compare", path, *more, *(["--json"] if json_too else []))
                self.assertEqual((done.returncode, done.stderr), (0, b""))
                return json.loads(done.stdout) if json_too else done.stdout.decode()

            def scale(run, by):
                points = [run["read"], run["prefill"], run["decode"]]
                points += [p for c in ("prefill", "decode", "batch") for p in run["sweep"][c]]
                for p in points:
                    for key in ("median", "min", "max"):
                        p[key] *= by

            now = compare(lambda run: scale(run, 0.001))
            c = now["compare"]
            self.assertEqual((c["file"], c["differences"]), (path, []))
            figures = {f["figure"]: f for f in c["figures"]}
            for name in ("memory read", "prefill 40", "decode 6 at 0", "sweep prefill 16", "sweep prefill 64",
                         "sweep decode at 0", "sweep batch 16"):
                self.assertEqual(figures[name]["verdict"], "better", name)
            for name in ("in prefill: matmul Q4_K", "in decode: head", "in decode: waiting"):
                self.assertIsNone(figures[name]["verdict"], name)
            f = figures["prefill 40"]
            self.assertEqual(f["now"], {k: now["prefill"][k] for k in ("median", "min", "max")})
            self.assertTrue(math.isclose(f["then"]["median"], 0.001 * then["prefill"]["median"]))
            self.assertTrue(math.isclose(f["ratio"], f["now"]["median"] / f["then"]["median"], rel_tol=1e-6))

            figures = {f["figure"]: f for f in compare(lambda run: scale(run, 1000))["compare"]["figures"]}
            self.assertEqual({figures[n]["verdict"] for n in ("memory read", "prefill 40", "sweep batch 2")}, {"worse"})

            def wide(run):
                run["prefill"].update(min=1e-3, max=1e12)
            self.assertEqual([f["verdict"] for f in compare(wide)["compare"]["figures"] if f["figure"] == "prefill 40"], ["same"])

            def other(run):
                scale(run, 1000)
                run["machine"].update(kernel_level="avx9", threads=64, cpu="a calculator")
                run["model"]["source"] = "other.gguf"
                run["batch_size"] = 7
                run["version"] = "0.0.1"
                run["sweep"] = None
            differences = compare(other)["compare"]["differences"]
            self.assertEqual([d.split(":")[0] for d in differences],
                             ["kernels", "model", "threads", "batch size", "processor", "version"])
            self.assertEqual(differences[0], "kernels: avx9 then, " + then["machine"]["kernel_level"] + " now")
            text = compare(other, json_too=False)
            for part in ("WORSE", "DIFFERENT", "avx9 then", "64 then, 2 now", "other.gguf", "a calculator",
                         "not in the earlier one"):
                self.assertIn(part, text)
            # a figure that is measured otherwise is another figure
            figures = compare(lambda run: run["prefill"].update(tokens=41))["compare"]["figures"]
            self.assertNotIn("prefill 41", [f["figure"] for f in figures])

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
        for flag in (b"--sweep", b"--svg", b"--compare", b"--profile", b"--ctx", b"--model", b"--synthetic", b"--prompt",
                     b"--gen", b"--depth", b"--threads", b"--batch-size", b"--repetitions", b"--json"):
            self.assertIn(flag, done.stdout)
        done = self.bench("--version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, rb"quern-bench \d+\.\d+")
        self.assertIn(b"kernels", done.stdout)

    def test_wrong_usage(self):
        for arguments, part in (
            ([], b"which model"), (["-m", MODEL, "--synthetic", "0.5b"], b"exclude"), (["-m", MODEL, "-p", "x"], b"-p x"),
            (["-m", MODEL, "-n", "-1"], b"-n -1"),
            (["-m", MODEL, "-r", "0"], b"-r 0"), (["-m", MODEL, "-t", "99999999999999999999"], b"-t 9"),
            (["-m", MODEL, "-p", "0", "-n", "0"], b"nothing"),
            (["-m", MODEL, "--ctx", "0"], b"--ctx 0"), (["-m", MODEL, "--read-mib", "63"], b"--read-mib 63"),
            (["-m", MODEL, "-p", "0", "-n", "0", "--profile"], b"--profile"),
            ([MODEL], MODEL.encode()), (["--frobnicate"], b"frobnicate"), (["-m"], b"'m'"),
        ):
            done = self.bench(*arguments)
            self.assertEqual((done.returncode, done.stdout), (2, b""), arguments)
            self.assertIn(part, done.stderr)

    def test_failures(self):
        for arguments, part in (
            (["-m", "/nonexistent.gguf"], b"nonexistent"), (["-m", "models/quern-tiny.md"], b"quern-tiny.md"),
            (["--synthetic", "7b"], b"7b"),
            (["-m", MODEL, "-p", "1025"], b"1025"), (["-m", MODEL, "-d", "1000", "-n", "25"], b"1000"),
        ):
            done = self.bench(*arguments)
            self.assertEqual((done.returncode, done.stdout), (1, b""), arguments)
            self.assertIn(part, done.stderr)
        with tempfile.TemporaryDirectory() as folder:
            for content, part in ((None, b"cannot open"), ("", b"not JSON"), ("{", b"line 1"), ("[]", b"no result"),
                                  ("{}", b"no result"),
                                  ('{"machine":{"kernel_level":"avx2"}}', b"no figure"),
                                  ('{"machine":{"kernel_level":3},"read":{"median":1,"min":1,"max":1}}', b"no kernel level"),
                                  ("[" * 100000, b"not JSON"), ("\0", b"not JSON")):
                path = folder + "/earlier.json"
                if content is not None:
                    with open(path, "w") as f:
                        f.write(content)
                done = self.bench("-m", MODEL, "-p", "1", "-n", "1", "-r", "1", "--compare", path)
                self.assertEqual((done.returncode, done.stdout), (1, b""), content)
                self.assertIn(part, done.stderr)
            done = self.bench("-m", MODEL, "-p", "0", "-n", "0", "-r", "1", "--ctx", "40", "--svg", folder + "/no/where.svg")
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"cannot create", done.stderr)
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
        said = self.dump("99999999999999999999").replace(b"9223372036854775807", b"99999999999999999999")
        self.assertIn(b"99999999999999999999", said)
        self.assertIn(b"1024", self.dump("1 " * 1025))
        self.assertIn(b"Usage", self.dump("1", "--batch", "0"))
        self.assertIn(b"Usage", self.dump("1", "--batch", "1x"))
        self.assertIn(b"Usage", self.dump("1", "--batch"))
        self.assertEqual(run(DUMP).returncode, 2)
        self.assertIn(b"cannot open", run(DUMP, MODEL, "/nonexistent", self.out).stderr)
        self.assertIn(b"cannot create", run(DUMP, MODEL, self.ids, "/nonexistent/out").stderr)


class CountDrafts(unittest.TestCase):
    def count(self, prompt, answer, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, name) for name in ("prompt", "answer")]
            for path, text in zip(paths, (prompt, answer)):
                with open(path, "w") as f:
                    f.write(text)
            return run(DRAFTS, MODEL, *paths, *arguments)

    def numbers(self, *arguments):
        done = self.count(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        first, *rest = done.stdout.decode().splitlines()
        answer, prompt, steps, guessed, right = (int(word) for word in first.split() if word.isdigit())
        by_rows = {int(line.split()[3]): int(line.split()[0]) for line in rest}
        self.assertEqual(sum(by_rows.values()), steps)
        self.assertEqual(sum((rows - 1) * n for rows, n in by_rows.items()), guessed)
        self.assertEqual(steps + right, answer - 1)
        return answer, steps, guessed, by_rows

    def test_a_copy_takes_few_steps(self):
        text = "".join(f"{i} bottles hang on wall {i * 7919 % 97}. " for i in range(60))
        answer, steps, guessed, by_rows = self.numbers(text, text, "3")
        self.assertLess(steps, answer / 2.5)
        self.assertEqual(max(by_rows), 4)
        self.assertEqual(self.numbers(text, text, "0")[1:], (answer - 1, 0, {1: answer - 1}))
        self.assertLess(self.numbers(text, text, "15")[1], steps / 2)

    def test_nothing_repeats(self):
        answer, steps, _, _ = self.numbers("Once upon a time there was a king.", "We sell green apples!", "3")
        self.assertEqual(steps, answer - 1)

    def test_refuses(self):
        for arguments, status, word in ((("a", "b", "16"), 2, b"usage"), (("a", "b", "x"), 2, b"usage"),
                                        (("a", "b", ""), 2, b"usage"),
                                        (("", "b"), 1, b"prompt"), (("a", ""), 1, b"answer")):
            done = self.count(*arguments)
            self.assertEqual((done.returncode, done.stdout), (status, b""))
            self.assertIn(word, done.stderr)
        done = run(DRAFTS, MODEL, "/nowhere/prompt", "/nowhere/answer")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"/nowhere/prompt", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
