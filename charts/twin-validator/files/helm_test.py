# ruff: noqa: S310, T201
"""What `helm test` runs: the gateway lists its twins, refuses a stranger, and a twin answers by some miner.

Environment: GATEWAY_URL, TWIN (may be empty), QUESTION, TIMEOUT_SECONDS. An API key is mounted at /keys/key.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

URL, TWIN = os.environ["GATEWAY_URL"], os.environ["TWIN"]
DEADLINE = time.monotonic() + int(os.environ["TIMEOUT_SECONDS"])
KEY = Path(os.environ.get("KEYS_DIR", "/keys")) / "key"


def fail(message):
    """End the test with a sentence that says what to do."""
    sys.exit("FAILED " + message)


def ask(path, *, key, body=None):
    """Return the document; tries again until the deadline while the gateway is starting."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    while True:
        try:
            request = urllib.request.Request(URL + path, data=data, headers=headers)
            with urllib.request.urlopen(request, timeout=max(1, DEADLINE - time.monotonic())) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < 500 or time.monotonic() > DEADLINE:
                raise
        except OSError as error:
            if time.monotonic() > DEADLINE:
                fail(f"{URL}{path}: {error}; look at `kubectl describe validator` and its conditions")
        time.sleep(1)


def status_without_key():
    """Return the HTTP status that a stranger gets."""
    try:
        ask("/v1/models", key=None)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


if not KEY.is_file():
    fail("the Secret of the gateway's keys has no key in clear under `key`: put that of a client there, for this test")
secret = KEY.read_text().strip()
try:
    models = ask("/v1/models", key=secret)
    block = (models.get("bettertherapy") or {}).get("block")
    print(f"ok: the gateway read the metagraph of block {block}; twins: "
          + (", ".join(model["id"] for model in models["data"]) or "none that a miner serves"))  # fmt: skip
    if status_without_key() != 401:
        fail("the gateway answers without a key: anyone who reaches it may ask")
    print("ok: the gateway refuses a request without a key")
    if TWIN:
        question = {"role": "user", "content": os.environ["QUESTION"]}
        answer = ask("/v1/chat/completions", key=secret, body={"model": TWIN, "messages": [question], "max_tokens": 48})
        text = answer["choices"][0]["message"]["content"].strip()
        said = answer.get("bettertherapy") or {}
        if not text or said.get("answered") is False:
            fail(f"no miner answered for {TWIN}; `kubectl twin miners --validator` shows who serves it")
        miner = (said.get("miner") or {}).get("uid")
        print(f"ok: {TWIN} answers by miner {miner} ({said.get('adapter') or 'base model'}): {text}")
except urllib.error.HTTPError as error:
    fail(f"{error.url} answered {error.code}: {error.read().decode(errors='replace')[:500]}")
