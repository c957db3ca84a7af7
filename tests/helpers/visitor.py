"""A visitor of `mindghost demo` without a browser: what gradio's page sends, and what it gets."""

import json
import uuid
from urllib.request import Request, urlopen

UPLOAD, JOIN, DATA = (f"gradio_api/{name}" for name in ("upload", "queue/join", "queue/data"))
TIMEOUT = 120


def upload(address: str, name: str, content: bytes) -> str:
    """Send a file; its path on the server. Raises HTTPError where it is refused."""
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    with urlopen(Request(address + UPLOAD, body, kind), timeout=TIMEOUT) as answer:
        (path,) = json.load(answer)
    return path


def ask(address: str, **file: object) -> dict:
    """What becomes of the question what is in a file, as gradio describes one: {"path": ...}."""
    session = uuid.uuid4().hex
    question = {"data": [file], "fn_index": 0, "session_hash": session}
    kind = {"Content-Type": "application/json"}
    with urlopen(Request(address + JOIN, json.dumps(question).encode(), kind), timeout=TIMEOUT) as answer:
        assert "event_id" in json.load(answer)
    with urlopen(f"{address}{DATA}?session_hash={session}", timeout=TIMEOUT) as lines:
        for line in lines:
            if line.startswith(b"data:"):
                message = json.loads(line[5:])
                if message["msg"] == "process_completed":
                    return message
    raise AssertionError("no answer")


def look(address: str, name: str, content: bytes) -> str:
    """The HTML that the page says of an image."""
    path = upload(address, name, content)
    message = ask(address, path=path, orig_name=name, meta={"_type": "gradio.FileData"})
    assert message["success"], message
    place, said = message["output"]["data"]
    assert place is None
    return said
