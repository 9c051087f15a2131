"""A server on loopback that misbehaves on demand, for tests of the `openai` engine."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.openai import OpenAIEngine

PARAMS = SamplingParams(temperature=1.0, max_new_tokens=20)
Answer = tuple[int, Any, Mapping[str, str]] | tuple[int, Any]


@dataclass
class Stub:
    """A server on loopback: `answer` is given a request's path, body and number, and gives status, JSON and headers."""

    answer: Callable[[str, dict[str, Any], int], Answer]
    models: Answer = (200, {"data": [{"id": "m"}, {"id": "other"}]})
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    url: str = ""


Serve = Callable[..., Stub]


@contextmanager
def stubs() -> Iterator[Serve]:
    """A function that starts servers, all of which end with the block."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[str, dict[str, Any], int], Answer], **settings: Any) -> Stub:
        stub = Stub(answer, **settings)
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send(*stub.models)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    number = len(stub.bodies)
                    stub.bodies.append(body)
                    stub.paths.append(self.path)
                    stub.keys.append(self.headers["authorization"])
                    stub.at_once += 1
                    stub.most_at_once = max(stub.most_at_once, stub.at_once)
                try:
                    self.send(*stub.answer(self.path, body, number))
                finally:
                    with lock:
                        stub.at_once -= 1

            def send(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                with suppress(BrokenPipeError, ConnectionResetError):
                    self.send_response(status)
                    for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64  # as many connections may arrive at once

        server = Listener(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        return stub

    try:
        yield start
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def chat(text: str | None = "fine", *, finish: str = "stop", n: int = 1, **message: Any) -> dict[str, Any]:
    """A chat reply."""
    choices = [
        {"index": index, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        for index in range(n)
    ]
    return {"choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 5 * n, "total_tokens": 7 + 5 * n}}


def echo(path: str, body: dict[str, Any], number: int) -> Answer:
    """The seed as the text."""
    return 200, chat(f"seed {body['seed']}")


def draw(
    stub: Stub, *, problems: int = 1, n: int = 1, params: SamplingParams = PARAMS, done: frozenset[int] = frozenset(),
    **options: Any,
) -> dict[tuple[str, int], Sampled]:  # fmt: skip
    """All samples of so many problems, each of which came once."""
    engine = OpenAIEngine(model="m", base_url=stub.url, **{"api": "chat", **options})
    requests = [
        Request(problem_id=f"p{index}", prompt=f"how many, {index}?", sample_idxs=tuple(range(n)), done=done)
        for index in range(problems)
    ]
    found = list(engine.sample(requests, params=params))
    assert len({(item.problem_id, item.sample_idx) for item in found}) == len(found)
    return {(item.problem_id, item.sample_idx): item for item in found}
