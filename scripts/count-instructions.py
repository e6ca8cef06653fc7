#!/usr/bin/env python3
"""What a matrix multiplication costs, read from the compiled code: instructions per multiply-add of its innermost loops.

For machines that are not at hand: build for them, and let their objdump take the kernels' object files apart:

    scripts/count-instructions.py --objdump aarch64-linux-gnu-objdump build-aarch64/libkernels_arm_*.a
    scripts/count-instructions.py build-test/libkernels_x86_*.a

64-bit ARM and x86-64. Every function matmul_TYPE is cut into basic blocks, the natural loops are found by dominators, and those
count that multiply bytes (floats, where the weights are floats) and hold no other loop. How many multiply-adds an iteration does
follows from its multiply instructions and their width; how many instructions, from the longest way through it.

The loop for many tokens is the one that lies deepest within other loops, and of several the one with the fewest instructions
for a multiply-add. The loop for one token is, among the others that ask memory for what comes later (prefetch), the one with
the most. Besides there are loops for few tokens and for what is left over of many; --all shows them too. What is outside of
the innermost loops (unpacking weights once for 64 tokens, say) is not counted.
"""

import argparse
import json
import re
import subprocess
import sys

CLASSES = ("load", "store", "multiply", "vector", "scalar")


class Instruction:
    def __init__(self, address, mnemonic, operands):
        self.address, self.mnemonic, self.operands = address, mnemonic, operands
        self.target = None  # of a branch within the function
        self.falls = True   # what follows may come next
        self.multiply_adds = 0
        self.kind = "scalar"
        self.prefetch = False

    def __str__(self):
        return f"{self.address:x}: {self.mnemonic} {self.operands}"


class Arm64:
    PRODUCTS = {"sdot": 4, "udot": 4, "usdot": 4, "sudot": 4, "smmla": 8, "ummla": 8, "usmmla": 8}  # for each sum of 32 bits
    LONG = re.compile(r"[su]m(ull|lal|lsl)2?$")

    @staticmethod
    def lanes(operands, width):
        """How many lanes of that width (b, h, s, d) the first operand has; 0: it is something else."""
        found = re.match(r"v\d+\.(\d+)" + width, operands)
        return int(found.group(1)) if found else 0

    @classmethod
    def describe(cls, i, floats):
        m, branch = i.mnemonic, re.search(r"\b([0-9a-f]+) <", i.operands)
        if m == "b" or m.startswith("b.") or m in ("cbz", "cbnz", "tbz", "tbnz"):
            i.target = int(branch.group(1), 16) if branch else None
        if m in ("b", "br", "ret", "udf", "brk"):
            i.falls = False
        i.prefetch = m.startswith("prf")
        if m.startswith("ld") or i.prefetch:
            i.kind = "load"
        elif m.startswith("st"):
            i.kind = "store"
        elif re.search(r"\b[vqdshb]\d+\b", i.operands):
            i.kind = "vector"
        if floats:
            i.multiply_adds = cls.lanes(i.operands, "s") if m in ("fmla", "fmls") else 0
        elif m in cls.PRODUCTS:
            i.multiply_adds = cls.lanes(i.operands, "s") * cls.PRODUCTS[m]
        elif cls.LONG.match(m):
            i.multiply_adds = cls.lanes(i.operands, "h")


class X86:
    WIDTH = {"x": 16, "y": 32, "z": 64}

    @classmethod
    def describe(cls, i, floats):
        m, branch = i.mnemonic, re.match(r"([0-9a-f]+) <", i.operands)
        if m.startswith("j"):
            i.target = int(branch.group(1), 16) if branch else None
        if m in ("jmp", "ret", "ud2", "hlt"):
            i.falls = False
        i.prefetch = m.startswith("prefetch")
        source, _, destination = i.operands.rpartition(",")
        if "(" in i.operands and i.operands.endswith(")"):  # %xmm0,(%rax,%rbx): the comma in the brackets does not part operands
            source, destination = i.operands.rsplit("(", 1)[0].rpartition(",")[0], "("
        vector = re.search(r"%([xyz])mm\d", i.operands)
        moves = re.match(r"v?(mov|pbroadcast|broadcast|pmov|cvtph2ps|ld|lddqu)", m)
        if i.prefetch:
            i.kind = "load"
        elif "(" in destination and source and re.match(r"v?(mov|extract|pextr|cvtps2ph|st)", m):
            i.kind = "store"
        elif moves and "(" in i.operands:
            i.kind = "load"
        elif vector or re.search(r"%(k[1-7]|tmm\d)", i.operands):
            i.kind = "vector"
        # What is multiplied is as wide as the last register: vpdpbusd %zmm1,%zmm2,%zmm3.
        last = re.search(r"%([xyz])mm\d+(\{[^}]*\})*$", i.operands)
        width = cls.WIDTH[last.group(1)] if last else 0
        if floats:
            i.multiply_adds = width // 4 if re.match(r"vfn?m(add|sub)\d+ps$", m) else 0
        elif re.match(r"(vpmaddubsw|vpdpb[su][su]ds?)$", m):
            i.multiply_adds = width
        elif re.match(r"tdpb[su][su]d$", m):  # the tiles' sizes are data: full ones are assumed
            i.multiply_adds = 16 * 16 * 64


# Address, mnemonic without prefixes, operands without objdump's comment.
INSTRUCTION = re.compile(r"\s*([0-9a-f]+):\s+(?:(?:notrack|bnd|rep|repz|lock|data16|cs|\{\w+\})\s+)*(\S+)\s*"
                         r"(.*?)(?:\s+(?://|# ).*)?$")


def disassemble(objdump, path):
    """The architecture, and the instructions of every function."""
    out = subprocess.run([objdump, "-f", "-d", "--no-show-raw-insn", path], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.search(r"^architecture: ([^,\n]+)", out, re.M)
    if not found:
        sys.exit(f"{path}: {objdump} does not know this file. Is it an object file, and this its architecture's objdump?")
    name = found.group(1)
    describer = Arm64 if name == "aarch64" else X86 if name == "i386:x86-64" else None
    if not describer:
        sys.exit(f"{path}: {name} is none of the architectures this can count (aarch64, i386:x86-64). "
                 "'UNKNOWN!' means that another objdump is needed: see --objdump.")
    functions, current = {}, None
    for line in out.splitlines():
        head = re.match(r"[0-9a-f]+ <([^>]+)>:$", line)
        if head:
            # A part that the compiler split off (matmul_q4_k.part.0) is counted with the whole.
            current = functions.setdefault(head.group(1).split(".")[0], [])
            continue
        text = INSTRUCTION.match(line)
        if text and current is not None:
            current.append(Instruction(int(text.group(1), 16), text.group(2), text.group(3)))
    for function, instructions in functions.items():
        for i in instructions:
            describer.describe(i, re.match(r"matmul_b?f\d+$", function) is not None)
            if i.multiply_adds:
                i.kind = "multiply"
    return describer, functions


class Block:
    def __init__(self):
        self.instructions, self.after, self.before = [], [], []


def basic_blocks(instructions):
    addresses = {i.address for i in instructions}
    heads = {instructions[0].address}
    for i, following in zip(instructions, instructions[1:] + [None]):
        if i.target in addresses:
            heads.add(i.target)
        if following and (i.target is not None or not i.falls):
            heads.add(following.address)
    blocks, by_address = [], {}
    for i in instructions:
        if i.address in heads:
            blocks.append(Block())
            by_address[i.address] = blocks[-1]
        blocks[-1].instructions.append(i)
    for b, following in zip(blocks, blocks[1:] + [None]):
        last = b.instructions[-1]
        b.after = [by_address[last.target]] if last.target in by_address else []
        if last.falls and following and following not in b.after:
            b.after.append(following)
        for other in b.after:
            other.before.append(b)
    return blocks


def dominators(blocks):
    """For every block the set of the blocks on each way to it, by numbers. What only a jump by table reaches is an entry."""
    number = {id(b): n for n, b in enumerate(blocks)}
    everything = (1 << len(blocks)) - 1
    entries = {n for n, b in enumerate(blocks) if n == 0 or not b.before}
    sets = [1 << n if n in entries else everything for n in range(len(blocks))]
    changed = True
    while changed:
        changed = False
        for n, b in enumerate(blocks):
            if n in entries:
                continue
            common = everything
            for other in b.before:
                common &= sets[number[id(other)]]
            if sets[n] != common | 1 << n:
                sets[n], changed = common | 1 << n, True
    return number, sets


class Loop:
    def __init__(self, head, body):
        self.head, self.body = head, body  # a block; ids of blocks

    def longest_way(self, blocks):
        """The instructions of an iteration, along the way with the most of them."""
        best = {}

        def way(block):
            if id(block) not in best:
                best[id(block)] = None  # a circle that is no natural loop would come here again
                rest = [way(b) for b in block.after if id(b) in self.body and b is not self.head]
                rest = max([r for r in rest if r is not None], key=len, default=[])
                best[id(block)] = block.instructions + rest
            return best[id(block)]

        return way(self.head)


def innermost_loops(instructions):
    """Pairs of an iteration's instructions and the number of loops around them."""
    if not instructions:
        return []
    blocks = basic_blocks(instructions)
    number, dominated_by = dominators(blocks)
    loops = {}
    for b in blocks:
        for head in b.after:
            if dominated_by[number[id(b)]] >> number[id(head)] & 1:  # an edge back to where every way comes from
                body, todo = loops.setdefault(id(head), Loop(head, {id(head)})).body, [b]
                while todo:
                    block = todo.pop()
                    if id(block) not in body:
                        body.add(id(block))
                        todo.extend(block.before)
    inner = [l for l in loops.values() if not any(m is not l and m.body < l.body for m in loops.values())]
    return [(l.longest_way(blocks), sum(l.body < m.body for m in loops.values())) for l in inner]


def count(way, depth):
    """One iteration in numbers."""
    numbers = {kind: sum(i.kind == kind for i in way) for kind in CLASSES}
    numbers["instructions"] = len(way)
    numbers["multiply_adds"] = sum(i.multiply_adds for i in way)
    numbers["per_multiply_add"] = len(way) / numbers["multiply_adds"]
    numbers["address"] = min(i.address for i in way)
    numbers["end"] = max(i.address for i in way)
    numbers["loops_around"] = depth
    numbers["prefetches"] = any(i.prefetch for i in way)
    return numbers


def kernel_loops(instructions):
    """All loops of a kernel that multiply, named."""
    loops = [count(way, depth) for way, depth in innermost_loops(instructions) if any(i.multiply_adds for i in way)]
    for loop in loops:
        loop["loop"] = "other"
    many = min(loops, key=lambda l: (-l["loops_around"], l["per_multiply_add"]), default=None)
    one = max((l for l in loops if l["prefetches"] and l is not many), key=lambda l: l["per_multiply_add"], default=None)
    if one:
        one["loop"] = "one token"
    if many:
        many["loop"] = "many tokens"
    order = ["one token", "other", "many tokens"]
    return sorted(loops, key=lambda l: (order.index(l["loop"]), -l["per_multiply_add"]))


def main():
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objdump", default="objdump", metavar="PROGRAM",
                        help="the objdump of the objects' architecture (default: objdump)")
    parser.add_argument("--all", action="store_true", help="all innermost loops that multiply, with their addresses")
    parser.add_argument("--json", action="store_true", help="the same as JSON: a list of objects, one for each loop")
    parser.add_argument("objects", nargs="+", metavar="OBJECT", help="object files of kernels, or archives of them")
    options = parser.parse_args()
    results = []
    for path in options.objects:
        try:
            _, functions = disassemble(options.objdump, path)
        except FileNotFoundError:
            sys.exit(f"{options.objdump}: no such program. Debian has objdump in the package binutils, "
                     "and the one for ARM in binutils-aarch64-linux-gnu.")
        except subprocess.CalledProcessError:
            sys.exit(f"{path}: {options.objdump} failed, see above.")
        level = re.sub(r"^(lib)?(kernels_)?(x86_|arm_)?|(\.c)?\.[ao]$", "", path.rsplit("/", 1)[-1])
        for name in sorted(f for f in functions if f.startswith("matmul_")):
            for loop in kernel_loops(functions[name]):
                if options.all or loop["loop"] != "other":
                    results.append({"level": level, "type": name[len("matmul_"):], **loop})
    if options.json:
        print(json.dumps(results, indent=1))
        return
    print(f"{'level':9} {'weights':7} {'loop':11} {'load':>5} {'store':>5} {'mult.':>5} {'vector':>6} {'scalar':>6} {'all':>5} "
          f"{'mult.-adds':>10} {'for 256':>8} {'each':>6}")
    for r in results:
        print(f"{r['level']:9} {r['type']:7} {r['loop']:11} {r['load']:5} {r['store']:5} {r['multiply']:5} {r['vector']:6} "
              f"{r['scalar']:6} {r['instructions']:5} {r['multiply_adds']:10} "
              f"{r['per_multiply_add'] * 256:8.1f} {r['per_multiply_add']:6.3f}"
              + (f"  {r['address']:x}..{r['end']:x}" if options.all else ""))
    if not results:
        sys.exit("no loop that multiplies was found: are these objects of kernels, with functions named matmul_TYPE?")


if __name__ == "__main__":
    main()
