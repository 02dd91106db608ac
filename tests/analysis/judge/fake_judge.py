"""An OpenAI-compatible server on a real socket, whose judge finds the first label that stands in the answer."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, Any], dict[str, str]]


def verdict(label: str | None, gold: str) -> str:
    outcome = "no_answer" if label is None else "correct" if label == gold else "incorrect"
    return json.dumps({"reason": "it says so", "answered_label": label, "verdict": outcome})


def completion(content: str) -> Reply:
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return 200, {"choices": [{"message": {"role": "assistant", "content": content}}], "usage": usage}, {}


def judged(body: dict[str, Any]) -> Reply:
    """A verdict as a good judge gives it: yes or no, whatever the answer begins with."""
    text = body["messages"][1]["content"]
    gold = re.search(r"GOLD LABEL: (\w+)", text)
    answer = re.search(r"<<<\n(.*)\n>>>", text, re.DOTALL)
    assert gold and answer
    said = re.match(r"(yes|no)\b", answer[1].strip().lower())
    return completion(verdict(said[1] if said else None, gold[1]))


class FakeJudge:
    """What the server was asked, and what it answers.

    Args:
        reply: request body -> status, JSON, headers.
        models: ids in the list; None: there is no list.
        key: wanted as a bearer token; None: none is.
        delay_s: before each chat is answered.
    """

    def __init__(
        self,
        reply: Callable[[dict[str, Any]], Reply] = judged,
        *,
        models: tuple[str, ...] | None = ("judge",),
        key: str | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self.reply = reply
        self.models = models
        self.key = key
        self.delay_s = delay_s
        self.chats: list[dict[str, Any]] = []
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, authorization: str, body: bytes) -> Reply:
        if self.key is not None and authorization != f"Bearer {self.key}":
            return 401, {"error": {"message": "Incorrect API key provided."}}, {}
        if method == "GET" and path == "/v1/models" and self.models is not None:
            return 200, {"data": [{"id": name} for name in self.models]}, {}
        if method == "POST" and path == "/v1/chat/completions":
            chat = json.loads(body)
            with self._lock:
                self.chats.append(chat)
            if self.delay_s:
                time.sleep(self.delay_s)
            return self.reply(chat)
        return 404, {"error": {"message": f"There is no {path}."}}, {}

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on a free port of this machine; gives the address."""
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                status, content, headers = judge.answer(
                    self.command, self.path, self.headers.get("Authorization", ""), body
                )
                data = json.dumps(content).encode()
                try:
                    self.send_response(status)
                    for name, value in {**headers, "Content-Type": "application/json"}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except ConnectionError:
                    pass  # the client was killed

            do_GET = do_POST = _do

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            yield self.url
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
