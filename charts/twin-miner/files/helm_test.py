# ruff: noqa: S310, T201
"""What `helm test` runs: the miner lists its models, refuses a stranger, and the first twin answers.

Environment: MINER_URL, TWIN (may be empty), QUESTION, TIMEOUT_SECONDS. The tokens are mounted at /access.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

URL, TWIN = os.environ["MINER_URL"], os.environ["TWIN"]
DEADLINE = time.monotonic() + int(os.environ["TIMEOUT_SECONDS"])
TOKENS = [p for p in sorted(Path(os.environ.get("ACCESS_DIR", "/access")).iterdir()) if p.is_file()]


def fail(message):
    """End the test with a sentence that says what to do."""
    sys.exit("FAILED " + message)


def ask(path, *, token, body=None):
    """Return (headers, document); tries again until the deadline while the miner is starting."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    while True:
        try:
            request = urllib.request.Request(URL + path, data=data, headers=headers)
            with urllib.request.urlopen(request, timeout=max(1, DEADLINE - time.monotonic())) as answer:
                return answer.headers, json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < 500 or time.monotonic() > DEADLINE:
                raise
        except OSError as error:
            if time.monotonic() > DEADLINE:
                fail(f"{URL}{path}: {error}; look at `kubectl get minerpools` and `kubectl describe` its conditions")
        time.sleep(1)


def status_without_token():
    """Return the HTTP status that a stranger gets."""
    try:
        ask("/v1/models", token=None)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


if not TOKENS:
    fail("the access Secret has no key: add one (key: a client's name, value: its token)")
secret = TOKENS[0].read_text().strip()
try:
    _, models = ask("/v1/models", token=secret)
    print("ok: the miner lists " + ", ".join(model["id"] for model in models["data"]))
    if status_without_token() != 401:
        fail("the miner answers without a token: anyone who reaches it may ask")
    print("ok: the miner refuses a request without a token")
    if TWIN:
        question = {"role": "user", "content": os.environ["QUESTION"]}
        headers, answer = ask(
            "/v1/chat/completions", token=secret, body={"model": TWIN, "messages": [question], "max_tokens": 48}
        )
        text = answer["choices"][0]["message"]["content"].strip()
        if not text:
            fail(f"{TWIN} answered with an empty text; look at the engine's log")
        print(f"ok: {TWIN} ({headers.get('x-twin-adapter-digest') or 'base model'}) answers: {text}")
except urllib.error.HTTPError as error:
    fail(f"{error.url} answered {error.code}: {error.read().decode(errors='replace')[:500]}")
