"""Replica servers of three makes, and a proxy that breaks connections: what the engine must work with and survive."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, make_server

from localcloud.git_http import Answer, GitHttpServer, RequestBody, Serve


class CommandReplica(ThreadingHTTPServer):
    """A replica on anything that speaks receive-pack, one stateless request at a time.

    Args:
        advertise: returns the advertisement.
        receive: takes a request's body and returns the answer.
        refuse_thin: answer, as some servers do, that a pack with deltas against other objects cannot be unpacked.
    """

    daemon_threads = True

    def __init__(self, advertise, receive, repository, *, refuse_thin=False):
        super().__init__(("127.0.0.1", 0), _CommandHandler)
        self.advertise, self.receive, self.repository, self.refuse_thin = advertise, receive, repository, refuse_thin
        self.refused = 0
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _CommandHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        service = parse_qs(urlsplit(self.path).query)["service"][0]
        assert service == "git-receive-pack"
        refs = self.server.advertise()
        line = f"# service={service}\n".encode()
        self._answer("application/x-git-receive-pack-advertisement", b"%04x%s0000%s" % (len(line) + 4, line, refs))

    def do_POST(self):
        body = RequestBody(self).read(-1)
        if self.server.refuse_thin and self._is_thin(body):
            self.server.refused += 1
            report = b"001dunpack unresolved deltas\n"
            report = b"%04x%s" % (len(report), report[4:])
            report += b"0000"
            band = b"%04x\x01%s0000" % (len(report) + 5, report)
            return self._answer("application/x-git-receive-pack-result", band)
        return self._answer("application/x-git-receive-pack-result", self.server.receive(body))

    def _is_thin(self, body):
        start = body.find(b"PACK")
        if start < 0:
            return False
        scratch = self.server.repository.parent / "scratch.git"
        shutil.rmtree(scratch, ignore_errors=True)
        subprocess.run(["git", "init", "-q", "--bare", str(scratch)], check=True)
        index = ["git", "-C", str(scratch), "index-pack", "--stdin"]
        return subprocess.run(index, input=body[start:], capture_output=True, check=False).returncode != 0

    def _answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


def git_replica(repository):
    return GitHttpServer(lambda request: Serve(repository)).url


def thin_refusing_replica(repository):
    program = ["git", "receive-pack", "--stateless-rpc"]

    def advertise():
        return subprocess.run([*program, "--advertise-refs", str(repository)], capture_output=True, check=True).stdout

    def receive(body):
        return subprocess.run([*program, str(repository)], input=body, capture_output=True, check=False).stdout

    return CommandReplica(advertise, receive, repository, refuse_thin=True)


def dulwich_replica(repository):
    from dulwich.repo import Repo
    from dulwich.server import DictBackend
    from dulwich.web import make_wsgi_chain

    class Handler(WSGIRequestHandler):
        def log_message(self, format, *arguments):
            pass

        def handle(self):
            self.raw_requestline = self.rfile.readline(65537)
            if not self.parse_request():
                return
            environment = self.get_environ()
            handler = ServerHandler(self.rfile, self.wfile, self.get_stderr(), environment)
            handler.request_handler = self
            handler.run(self.server.get_app())

    server = make_server(
        "127.0.0.1", 0, make_wsgi_chain(DictBackend({"/r": Repo(str(repository))})), handler_class=Handler
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def with_rest_api(source, api):
    """Serve a source repository with an Azure DevOps REST API beside it, which returns a document and headers."""

    def answer(request):
        document, headers = api(request.path, request.query)
        return Answer(200, json.dumps(document), headers, "application/json")

    return GitHttpServer(lambda request: Serve(source), answer).url


JGIT = Path(__file__).parent / "jgit" / "JGitServer.java"


def jgit_classpath():
    """Return JGit's jars where this machine has them, with what they need, or None."""
    repository = Path.home() / ".m2" / "repository"
    if not shutil.which("java") or not shutil.which("javac"):
        return None
    jars = []
    for pattern in (
        "org/eclipse/jgit/org.eclipse.jgit/*/org.eclipse.jgit-[0-9]*.jar",
        "com/googlecode/javaewah/JavaEWAH/*/JavaEWAH-*.jar",
        "org/slf4j/slf4j-api/*/slf4j-api-*.jar",
        "commons-codec/commons-codec/*/commons-codec-*.jar",
    ):
        found = sorted(path for path in repository.glob(pattern) if "sources" not in path.name)
        if not found:
            return None
        jars.append(str(found[-1]))
    return os.pathsep.join(jars)


@contextlib.contextmanager
def jgit_server(classes):
    """Run JGit's receive-pack in one process for all repositories, and yield its port."""
    with subprocess.Popen(["java", "-XX:+UseSerialGC", "-cp", classes, "JGitServer"], stdout=subprocess.PIPE) as java:
        try:
            yield int(java.stdout.readline())
        finally:
            java.kill()


def jgit_replica(repository, port):
    def ask(verb, body=b""):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"{verb} {repository}\n".encode() + body)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

    return CommandReplica(lambda: ask("advertise"), lambda body: ask("receive", body), repository).url


class Proxy:
    """Passes connections on to a server, and breaks the ones that it is told to.

    Args:
        url: the server.
        faults: for the number of a connection (0 is the first): direction (``"up"`` to the server, ``"down"`` to the
            client), bytes to pass before the fault, and the fault, ``"cut"`` or ``"flip"`` (of one bit).
    """

    def __init__(self, url, faults):
        self.faults, self.seen = dict(faults), 0
        self._target = urlsplit(url).port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            client, _ = self._listener.accept()
            fault = self.faults.get(self.seen)
            self.seen += 1
            server = socket.create_connection(("127.0.0.1", self._target))
            pair = [client, server]
            for direction, source, sink in (("up", client, server), ("down", server, client)):
                mine = fault if fault and fault[0] == direction else None
                threading.Thread(target=self._pass, args=(source, sink, mine, pair), daemon=True).start()

    @staticmethod
    def _pass(source, sink, fault, pair):
        passed = 0
        try:
            while data := source.recv(65536):
                if fault and passed + len(data) > fault[1]:
                    at = max(0, fault[1] - passed)
                    if fault[2] == "cut":
                        sink.sendall(data[:at])
                        break
                    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                    fault = None
                passed += len(data)
                sink.sendall(data)
            else:
                sink.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
