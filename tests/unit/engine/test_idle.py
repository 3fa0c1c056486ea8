"""Connections that are used again: which are, and what is never sent twice."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from codecommit_mirror.engine.failures import RetryableError
from codecommit_mirror.engine.settings import Endpoint
from codecommit_mirror.engine.wire import idle
from codecommit_mirror.engine.wire.transport import read_body, send


class Server(ThreadingHTTPServer):
    """Answers each request with its number on its connection, and can close connections while they are idle."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections, self.requests, self.closes, self.breaks = 0, [], False, False
        self.closed = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def process_request(self, request, client_address):
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        pass

    def shutdown_request(self, request):
        super().shutdown_request(request)
        self.closed.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.server.breaks and self.server.requests:
            # As if the server had just closed a connection that looked idle.
            self.server.breaks, self.close_connection = False, True
            return
        self.server.requests.append((self.command, self.path))
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 1000)
        self.close_connection = self.server.closes

    def do_POST(self):
        left = int(self.headers["Content-Length"])
        self.rfile.read(left)
        self.do_GET()

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def server():
    idle._idle.clear()
    with Server() as running:
        yield running
        running.shutdown()


def endpoint(server):
    return Endpoint("replica", f"http://127.0.0.1:{server.server_port}/r", "Basic x", "u", "p", "look")


def ask(server, method="GET", body=None, length=None):
    return read_body(endpoint(server), send(endpoint(server), method, "/x", {}, body, length))


def test_requests_one_after_the_other_share_a_connection(server):
    assert [len(ask(server)) for _ in range(3)] == [1000] * 3
    assert len(ask(server, "POST", [b"have"], 4)) == 1000
    assert (server.connections, len(server.requests)) == (1, 4)


def test_two_at_a_time_do_not(server):
    first = send(endpoint(server), "GET", "/x", {})
    ask(server)
    assert len(read_body(endpoint(server), first)) == 1000
    assert server.connections == 2


def test_an_answer_that_was_not_read_takes_its_connection_with_it(server):
    send(endpoint(server), "GET", "/x", {}).close()
    ask(server)
    assert server.connections == 2


def test_a_connection_is_not_idle_for_long(server, monkeypatch):
    ask(server)
    monkeypatch.setattr(idle, "IDLE_SECONDS", 0)
    ask(server)
    assert server.connections == 2


def test_a_push_takes_no_connection_that_the_server_has_closed(server):
    server.closes = True
    ask(server)
    assert server.closed.wait(5)
    ask(server, "POST", (part for part in [b"pack"]), 4)
    assert [method for method, _ in server.requests] == ["GET", "POST"]


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", [b"have"])])
def test_what_changes_nothing_is_asked_again_on_a_new_connection(server, method, body):
    ask(server)
    server.breaks = True
    assert len(ask(server, method, body, body and 4)) == 1000
    assert (server.connections, len(server.requests)) == (2, 2)


def test_a_push_is_never_sent_twice(server):
    ask(server)
    server.breaks = True
    with pytest.raises(RetryableError, match=r"the replica http.* broke the connection"):
        ask(server, "POST", (part for part in [b"pack"]), 4)
    assert len(server.requests) == 1


def test_a_connection_that_was_opened_ahead_is_taken(server):
    idle.open_ahead(endpoint(server).url)
    ask(server)
    assert server.connections == 1


def test_what_cannot_be_opened_ahead_is_told_when_it_is_asked(server):
    nobody = Endpoint("source", "http://127.0.0.1:9/r", "Basic x", "u", "p", "look")
    idle.open_ahead(nobody.url)
    with pytest.raises(RetryableError, match=r"the source http.* could not be reached"):
        send(nobody, "GET", "/x", {})
