"""A file server on loopback whose first path component says how it misbehaves.

    /good/F      serves F, ranges too                    /slow/F      like good, at about 400 kB/s
    /norange/F   answers every range request with 200    /cutonce/F   breaks off the first answer halfway, then like good
    /cut/F       breaks off every answer halfway          /busyonce/F  503 first, then like good
    /corrupt/F   right size, one byte changed             /short/F     leaves off the last 100 bytes
    /long/F      100 bytes too many                       /endless/F   bytes without an end and without a length
    /wrongrange/F  answers a range request with 206 and another range than was asked for
    /redirect/F  302 to /good/F                           /status/N/F  answers with the status N
"""
import http.server
import threading
import time


class FileServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files = files
        self.requests = []  # (path, Range header or None)
        self.seen = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path):
        return f'http://127.0.0.1:{self.server_address[1]}/{path}'

    def handle_error(self, request, client_address):
        pass  # clients hang up; that is what is being tested


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def send(self, status, body, headers=(), length=None):
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header('Content-Length', str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        wanted = self.headers.get('Range')
        self.server.requests.append((self.path, wanted))
        mode, _, name = self.path.lstrip('/').partition('/')
        first_time = self.path not in self.server.seen
        self.server.seen.add(self.path)
        if mode == 'status':
            return self.send(int(name.split('/')[0]), b'<html>no</html>')
        if mode == 'redirect':
            return self.send(302, b'', [('Location', '/good/' + name)])
        if mode == 'busyonce' and first_time:
            return self.send(503, b'busy', [('Retry-After', '1')])
        data = self.server.files.get(name)
        if data is None:
            return self.send(404, b'not here')
        if mode == 'corrupt':
            data = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
        if mode == 'short':
            data = data[:-100]
        if mode == 'long':
            data = data + bytes(100)
        if mode == 'endless':
            self.send_response(200)
            self.end_headers()
            while True:  # ends when the client hangs up
                self.wfile.write(bytes(65536))
        start, status, headers = 0, 200, []
        if wanted and mode != 'norange':
            start = int(wanted.removeprefix('bytes=').split('-')[0])
            if start >= len(data):
                return self.send(416, b'', [('Content-Range', f'bytes */{len(data)}')])
            if mode == 'wrongrange':
                start //= 2
            status = 206
            headers = [('Content-Range', f'bytes {start}-{len(data) - 1}/{len(data)}')]
        rest = data[start:]
        if mode == 'cut' or (mode == 'cutonce' and first_time):
            self.send(status, rest[:len(rest) // 2], headers, len(rest))
            self.close_connection = True
            return None
        if mode == 'slow':
            self.send(status, b'', headers, len(rest))
            for i in range(0, len(rest), 8192):
                self.wfile.write(rest[i:i + 8192])
                time.sleep(0.02)
            return None
        return self.send(status, rest, headers)
