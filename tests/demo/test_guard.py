"""What a page's server lets through, with an application behind it that answers everything."""

import asyncio

import pytest

from mindghost.demo.guard import POLICY, Guard

MOST = 1 << 10
HOSTS = {"localhost", "127.0.0.1", "::1"}


async def everything(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"let through"})


def asked(method: str, path: str, hosts=HOSTS, host: str = "127.0.0.1:7860", **headers: str) -> tuple[int, str, dict]:
    """Status, text and headers of the answer to a request."""
    answers, before = [], []
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {"type": "http", "method": method, "path": path}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in named.items()]

    async def send(message) -> None:
        answers.append(message)

    asyncio.run(Guard(everything, MOST, hosts, lambda: before.append(path))(scope, None, send))
    start, body = answers
    assert before == ([path] if (start["status"], path) == (200, "/gradio_api/upload") else [])
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], body["body"].decode(), found


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/config"),
        ("GET", "/assets/index-abc.js"),
        ("GET", "/static/img/logo.svg"),
        ("GET", "/gradio_api/queue/data"),
        ("GET", "/gradio_api/heartbeat/abc"),
    ],
)
def test_what_the_page_needs_is_let_through_with_its_policy(method, path):
    status, text, headers = asked(method, path)
    assert (status, text) == (200, "let through")
    assert headers["x-own"] == "1"
    assert headers["content-security-policy"] == POLICY
    assert not any(word in POLICY for word in ("http", "*"))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file=https://example.org/a.png"),
        ("GET", "/gradio_api/proxy=https://example.org/"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/monitoring"),
        ("GET", "/gradio_api/heartbeat/a/b"),
        ("GET", "/docs"),
        ("POST", "/gradio_api/run/look"),
        ("POST", "/gradio_api/call/look"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/run-history/connect"),
        ("POST", "/login"),
        ("POST", "/"),
        ("PUT", "/gradio_api/upload"),
        ("DELETE", "/"),
        ("OPTIONS", "/gradio_api/upload"),
    ],
)
def test_all_else_is_not_there(method, path):
    assert asked(method, path, content_length="10")[0] == 404


@pytest.mark.parametrize("host", ["localhost:7860", "LOCALHOST", "127.0.0.1", "[::1]:7860"])
def test_this_machine_has_its_names(host):
    assert asked("GET", "/", host=host)[0] == 200


@pytest.mark.parametrize("host", ["example.org", "example.org:7860", "127.0.0.1.example.org", "localhost.evil:80", ""])
def test_a_name_of_somebody_else_is_refused(host):
    assert asked("GET", "/", host=host)[0] == 421
    assert asked("GET", "/", hosts=None, host=host)[0] == 200


def test_an_upload_is_as_large_as_it_says_and_not_too_large():
    path = "/gradio_api/upload"
    assert asked("POST", path, content_length=str(MOST))[0] == 200
    status, text, _ = asked("POST", path, content_length=str(MOST + (1 << 16) + 1))
    assert (status, text) == (413, "Too large: at most 0.000976562 MB.")
    for wrong in ("", "-1", "1e3", "٣"):
        assert asked("POST", path, content_length=wrong)[0] == 411
    assert asked("POST", path)[0] == 411
    assert asked("POST", path, transfer_encoding="chunked", content_length="10")[0] == 411


def test_other_requests_are_short():
    assert asked("POST", "/gradio_api/queue/join", content_length="1000")[0] == 200
    assert asked("POST", "/gradio_api/queue/join", content_length=str(1 << 20))[0] == 413


def test_there_are_no_websockets_and_the_start_is_passed_on():
    seen = []

    async def app(scope, receive, send) -> None:
        seen.append(scope["type"])

    guard = Guard(app, MOST, HOSTS, lambda: None)
    for kind in ("websocket", "lifespan"):
        asyncio.run(guard({"type": kind, "headers": []}, None, None))
    assert seen == ["lifespan"]
