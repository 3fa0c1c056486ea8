"""A company's network: servers whose certificates a CA of its own has signed, and a proxy that wants a password."""

import base64
import contextlib
import selectors
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Authority:
    """A CA, and the certificate and key of a server called ``localhost``."""

    certificate: Path
    server_certificate: Path
    server_key: Path


def create_authority(folder):
    """Make a CA and a server's certificate with openssl."""
    names = {name: folder / f"{name}.pem" for name in ("ca", "ca-key", "server", "server-key", "request")}

    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=folder)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new_key, "-subj", "/CN=A company's CA", "-days", "2", "-keyout", names["ca-key"],
            "-out", names["ca"], "-addext", "basicConstraints=critical,CA:TRUE")  # fmt: skip
    openssl("req", *new_key, "-subj", "/CN=localhost", "-keyout", names["server-key"], "-out", names["request"])
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    openssl("x509", "-req", "-in", names["request"], "-CA", names["ca"], "-CAkey", names["ca-key"], "-CAcreateserial",
            "-days", "2", "-extfile", folder / "names", "-out", names["server"])  # fmt: skip
    return Authority(names["ca"], names["server"], names["server-key"])


def with_tls(server, authority):
    """Let a server that has just been made speak TLS, and return its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server_certificate, authority.server_key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return f"https://localhost:{server.server_port}"


def _listen(handle):
    """Let a thread of its own handle each connection to a port, and return the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=handle, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


class Proxy:
    """An HTTP proxy for CONNECT, which may want a user and a password, and may refuse hosts."""

    def __init__(self, user="", password="", status=200):
        self._login = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self._status, self.targets = status, []
        self.port = _listen(self._handle)
        self.url = f"http://127.0.0.1:{self.port}"

    def _handle(self, client):
        with client, contextlib.suppress(OSError):
            while head := self._read_head(client):
                lines = head.split("\r\n")
                self.targets.append(lines[0].split()[1])
                if not self._login or f"Proxy-Authorization: Basic {self._login}" in lines:
                    break
                refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=p\r\n"
                client.sendall(f"{refusal}Content-Length: 0\r\n\r\n".encode())
            else:
                return
            if self._status != 200:
                client.sendall(f"HTTP/1.1 {self._status} No\r\nContent-Length: 0\r\n\r\n".encode())
                return
            host, _, port = self.targets[-1].rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _pass_on(client, server)

    @staticmethod
    def _read_head(client):
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data:
                return ""
            head += data
        return head.decode()


def _pass_on(client, server):
    # select() takes no descriptor above 1,023, and a worker of a long run has more.
    with selectors.DefaultSelector() as ready:
        ready.register(client, selectors.EVENT_READ, server)
        ready.register(server, selectors.EVENT_READ, client)
        while True:
            for key, _ in ready.select():
                data = key.fileobj.recv(65536)
                if not data:
                    return
                key.data.sendall(data)


class TlsFront:
    """Speaks TLS in front of a server that does not."""

    def __init__(self, url, authority):
        self._target = urlsplit(url).port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(authority.server_certificate, authority.server_key)
        self.url = f"https://localhost:{_listen(self._handle)}"

    def _handle(self, client):
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(client, server_side=True) as encrypted,
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            threading.Thread(target=self._answer, args=(server, encrypted), daemon=True).start()
            while data := encrypted.recv(65536):
                server.sendall(data)

    @staticmethod
    def _answer(server, encrypted):
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                encrypted.sendall(data)
            encrypted.shutdown(socket.SHUT_RDWR)
