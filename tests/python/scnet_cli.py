"""scnet-cli, the published client of document 002, as a person starts it: `scnet container resources`.

Reads one JSON object: `url`, `ca` (path or null), `group`, `accelerator`, and `tokens`: what the platform's login, which is not
gpuquota's, hands out one after the other. Writes the program's exit code, what it printed, and how often it logged in.
"""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading


def platform(tokens):
    """The client's login service on a port of its own."""
    logins = []

    class Login(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = tokens[min(len(logins), len(tokens) - 1)]
            logins.append(self.path)
            data = [{"clusterId": "11112", "clusterName": "here", "token": token}]
            body = json.dumps({"code": "0", "msg": "success", "data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Login)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}", logins


def main():
    asked = json.load(sys.stdin)
    api, logins = platform(asked["tokens"])
    with tempfile.TemporaryDirectory() as home:
        profile = {
            "user": "user",
            "access_key": "key",
            "secret_key": "secret",
            "base_overrides": {"api": api, "ai": asked["url"]},
        }
        config = {"current": "default", "profiles": {"default": profile}}
        pathlib.Path(home, "config.json").write_text(json.dumps(config), encoding="utf-8")
        # Wide enough that no line of the answer is broken.
        environment = dict(os.environ, SCNET_HOME=home, COLUMNS="4000", PYTHONIOENCODING="utf-8")
        if asked["ca"]:
            environment["REQUESTS_CA_BUNDLE"] = asked["ca"]
        command = [sys.executable, "-m", "scnet", "--output", "json", "container", "resources"]
        command += ["--accelerator", asked["accelerator"], "--group", asked["group"]]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    said = {"exit": ended.returncode, "out": ended.stdout, "err": ended.stderr, "logins": len(logins)}
    json.dump(said, sys.stdout)


main()
