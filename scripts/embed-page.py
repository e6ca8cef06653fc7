#!/usr/bin/env python3
"""Turns the chat page into C: scripts/embed-page.py PAGE.html OUTPUT.c

Refuses a page that its own Content-Security-Policy would break: anything but inline scripts and styles, or attributes that
hold script or style."""
import base64
import hashlib
import re
import sys

source, output = sys.argv[1:]
with open(source, 'rb') as f:
    page = f.read()
text = page.decode('utf-8')


def bodies(tag):
    """What is between the tags. The policy takes the digest of exactly these bytes."""
    found = re.findall(rf'<{tag}>(.*?)</{tag}>', text, re.DOTALL)
    if len(found) != len(re.findall(rf'<{tag}\b', text)) or not found:
        sys.exit(f'{source}: each <{tag}> must be inline and without attributes')
    return found


def digests(tag):
    return ' '.join("'sha256-%s'" % base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies(tag))


markup = re.sub(r'<(script|style)>.*?</\1>', '', text, flags=re.DOTALL)
wrong = re.search(r'<[^>]*\s(on\w+|style|src|srcset|action)\s*=', markup) or re.search(r'href="(?!data:)[^"]*"', markup)
if wrong:
    sys.exit(f'{source}: the policy forbids {wrong.group(0)!r}')

policy = "; ".join([
    "default-src 'none'", "script-src " + digests('script'), "style-src " + digests('style'), "img-src data:",
    "connect-src 'self'",
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"])
lines = [f'/* Made by scripts/embed-page.py from {source.rsplit("/", 1)[-1]}: do not edit. */', '#include "server/page/page.h"',
         '',
         f'const char page_etag[] = "\\"{hashlib.sha256(page).hexdigest()[:32]}\\"";',
         f'const char page_csp[] = "{policy}";',
         f'const size_t page_html_length = {len(page)};', 'const char page_html[] = {']
for i in range(0, len(page), 32):
    # As character constants, which have a value that fits whether the machine's char is signed (x86) or not (ARM).
    lines.append('    ' + ','.join(f"'\\x{b:02x}'" for b in page[i:i + 32]) + ',')
lines.append('};')
with open(output, 'w', encoding='ascii') as f:
    f.write('\n'.join(lines) + '\n')
