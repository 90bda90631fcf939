"""Runs the Python sample of document 003 as printed, with the `api_client` that it presupposes.

Reads one JSON object: `url`, `ca` (path or null), `token`, `sample` (path). Writes what the sample holds and printed in the end, and
the answer of its method that the sample defines and does not call.
"""

import contextlib
import io
import json
import sys

import requests


class ApiClient:
    def __init__(self, url, token, ca):
        self.base = url + "/api/v1/licenses"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"
        self.session.verify = ca or True

    def api_call(self, path, method="GET", json=None):
        answer = self.session.request(method, self.base + path, json=json, timeout=20, allow_redirects=False)
        answer.raise_for_status()
        return answer.json()


def main():
    asked = json.load(sys.stdin)
    with open(asked["sample"], encoding="utf-8") as file:
        sample = compile(file.read(), "quota_manager.py", "exec")
    names = {"api_client": ApiClient(asked["url"], asked["token"], asked["ca"])}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(sample, names)
    created = names["new_quota"]
    extended = names["quota_manager"].extend_quota_expiry(created["data"]["id"], "2035-12-31T23:59:59Z")
    said = {
        "new_quota": created,
        "high_usage": names["high_usage"],
        "printed": printed.getvalue(),
        "extended": extended,
    }
    json.dump(said, sys.stdout)


main()
