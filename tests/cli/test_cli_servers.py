"""The command against servers, and against what is not one: one line that says what to set."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from listeners import encrypted, listening
from rest_server import Fault, Server
from tiny import TinyModel

from qdrant_embed.cli.main import main

SECRET = "s3cret-key"
NOT_QDRANT = "what answers there is not Qdrant"
PAGE = b"<html><body><h1>A page for people</h1></body></html>"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of documents in the current folder, and an environment without keys or proxies."""
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("one\ntwo\n")
    for name in ("HTTP", "HTTPS", "ALL", "NO", "GRPC"):
        monkeypatch.delenv(f"{name}_PROXY", raising=False)
        monkeypatch.delenv(f"{name.lower()}_proxy", raising=False)
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command that fails says: one line, without traceback, key or page."""

    def run(*arguments: str, command: str = "add") -> str:
        what = {"add": "a.txt", "query": "x", "migrate": "--to=new"}[command]
        more = ["--model", "x"] if command == "migrate" else []
        capsys.readouterr()
        assert main([command, "--collection", "demo", *arguments, *more, what]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith("qdrant-embed: ")
        assert SECRET not in line
        assert "<" not in line
        assert "Traceback" not in line
        return line.removeprefix("qdrant-embed: ")

    return run


@contextmanager
def answering(status: str, body: bytes = PAGE, headers: str = "") -> Iterator[int]:
    """Answer each HTTP request with the same status and body."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n{headers}"
        "Connection: close\r\n\r\n"
    )

    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(head.encode() + body)

    with listening(answer) as port:
        yield port


NOBODY = [("--url", "http://127.0.0.1:9"), ("--url", "http://127.0.0.1", "--grpc", "--grpc-port=9")]


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("command", ["add", "query", "migrate"])
@pytest.mark.parametrize("at", NOBODY, ids=["rest", "grpc"])
def test_nobody_listens_and_the_command_ends_soon(
    at: tuple[str, ...], command: str, error: Callable[..., str]
) -> None:
    start = time.monotonic()
    line = error(*at, command=command)
    assert time.monotonic() - start < 10
    assert line.startswith("http://127.0.0.1:9")
    assert "refused" in line
    assert line.endswith("check the address and its port, and that the server runs")


@pytest.mark.usefixtures("patience")
@pytest.mark.skipif(sys.platform != "linux", reason="another system's queue is not full so")
@pytest.mark.parametrize("grpc", [False, True])
def test_an_address_that_swallows_connections_is_given_up_soon(
    grpc: bool, error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qdrant_embed.cli.database.CONNECTING", 1)
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(8):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", port))
        time.sleep(0.2)
        start = time.monotonic()
        at = [f"--url=http://127.0.0.1:{port}", *(["--grpc", f"--grpc-port={port}"] * grpc)]
        assert error(*at).endswith("check the address, its port and firewalls")
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("grpc", [False, True])
def test_what_has_begun_is_waited_for(grpc: bool, grpc_server: Server, tiny: TinyModel) -> None:
    name = "Points/Upsert" if grpc else "PUT /collections/demo/points"
    grpc_server.fail_once(name, Fault(0), times=6)
    assert main(["add", *of(grpc_server, tiny, grpc=grpc), "a.txt"]) == 0
    assert grpc_server.database.count("demo").count == 2


@pytest.mark.parametrize("grpc", [False, True])
def test_a_server_that_goes_away_is_said_once(
    grpc: bool, grpc_server: Server, tiny: TinyModel, error: Callable[..., str]
) -> None:
    Path("a.txt").write_text("\n".join(f"text {n}" for n in range(40)))
    uploads = 0

    def later_ones(request: str) -> Fault | None:
        nonlocal uploads
        uploads += request in ("Points/Upsert", "PUT /collections/demo/points")
        return Fault(0) if uploads > 1 else None

    grpc_server.fault = later_ones
    line = error(*of(grpc_server, tiny, grpc=grpc), "--batch-size=10")
    assert "10 documents are stored in 'demo', then add() failed at documents[10]: Qdrant" in line
    assert line.count("tried 15 times in") == line.count("is not available") == 1
    assert line.count("server's log" if grpc else "check that the server runs") == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy_at_first_is_waited_for(
    status: int, server: Server, tiny: TinyModel
) -> None:
    server.fail_once("", Fault(status), times=4)
    assert main(["add", *of(server, tiny), "a.txt"]) == 0
    server.fail_once("", Fault(status), times=3)
    assert main(["query", *of(server, tiny), "one"]) == 0


def of(server: Server, tiny: TinyModel, *, grpc: bool = False) -> list[str]:
    over = ["--grpc", f"--grpc-port={server.grpc_port}"] if grpc else []
    return ["--url", server.url, "--collection", "demo", "--model", str(tiny.path), *over]


def test_grpc_is_used_if_it_is_asked_for(grpc_server: Server, tiny: TinyModel) -> None:
    assert main(["add", *of(grpc_server, tiny, grpc=True), "a.txt"]) == 0
    assert main(["query", *of(grpc_server, tiny, grpc=True), "one"]) == 0
    assert any("Upsert" in name for name in grpc_server.requests)
    assert not any("/collections/" in name for name in grpc_server.requests)


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("option", ["--url", "--path"])
def test_an_empty_place_is_wrong_usage(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["add", "--collection", "demo", option, value, "a.txt"])
    assert caught.value.code == 2
    assert "empty; is the variable set that it comes from?" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", "²"])
def test_a_timeout_is_a_whole_number(value: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["query", "--collection=demo", "--url=http://h", f"--timeout={value}", "x"])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--url=http://localhost"], "http://localhost:6333: "),
        (["--url=localhost:9"], "http://localhost:9: "),
        (["--url=http://localhost:9/"], "http://localhost:9: "),
        (["--url=http://localhost:9/a"], "http://localhost:9/a: "),
        (["--url=http://localhost:9/", "--prefix=a"], "http://localhost:9/a: "),
        (["--url=http://localhost:9", "--prefix", "/a/b/"], "http://localhost:9/a/b: "),
        (["--url=http://[::1]:9"], "http://[::1]:9: "),
        (["--url=http://[::1]:9", "--grpc", "--grpc-port=8"], "http://[::1]:8 (gRPC): "),
        (["--url=http://localhost", "--grpc"], "http://localhost:6334 (gRPC): "),
        (["--url=https://localhost"], "https://localhost:6333: "),
        (["--url=localhost:9", f"--api-key={SECRET}"], "https://localhost:9: "),
    ],
)
def test_the_address_that_is_asked_is_shown(
    options: list[str], asked: str, error: Callable[..., str]
) -> None:
    assert error(*options).startswith(asked)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([f"--url=http://me:{SECRET}@h"], "pass a key as --api-key or QDRANT_API_KEY"),
        (["--url=http://"], "no host"),
        (["--url=http://h:x"], "not a valid host or port"),
        (["--url=ftp://h"], "Unknown scheme"),
        (["--url=http://h/a", "--prefix=b"], "Prefix can be set either"),
        (["--url=http://h/a", "--grpc"], "a prefix, which gRPC does not have"),
        (["--url=http://h", "--prefix=b", "--grpc"], "a prefix, which gRPC does not have"),
        (["--url=http://h", f"--api-key={SECRET}\n"], "--api-key has '\\n' at position 10"),
        (["--url=http://h", "--ca=nowhere.pem"], "--ca nowhere.pem cannot be read: [Errno 2]"),
        (["--url=http://h", "--ca=a.txt"], "it has no certificate in PEM"),
    ],
)
def test_what_cannot_be_asked_says_why(
    options: list[str], message: str, error: Callable[..., str]
) -> None:
    assert message in error(*options)


def test_a_key_of_the_environment_that_cannot_be_sent_is_not_shown(
    error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", f"{SECRET}é")
    assert error("--url=http://h").startswith("QDRANT_API_KEY has 'é' at position 10")


@pytest.mark.parametrize("command", ["add", "query", "migrate"])
@pytest.mark.parametrize("grpc", [False, True])
def test_a_missing_or_wrong_key_says_what_to_set(
    grpc: bool, command: str, grpc_server: Server, error: Callable[..., str]
) -> None:
    grpc_server.tokens = {"right": "manage"}
    at = [f"--url={grpc_server.url}", *(["--grpc", f"--grpc-port={grpc_server.grpc_port}"] * grpc)]
    for key, what in ([], "a key"), ([f"--api-key={SECRET}"], "another key"):
        line = error(*at, *key, command=command)
        assert "401" in line
        assert line.endswith(f"pass {what} as --api-key, or set QDRANT_API_KEY")
        assert "api_key=" not in line


def test_a_key_with_too_few_rights_says_which(
    server: Server, tiny: TinyModel, error: Callable[..., str]
) -> None:
    assert main(["add", *of(server, tiny), "a.txt"]) == 0
    server.tokens = {SECRET: "read"}
    at = [f"--url={server.url}", f"--api-key={SECRET}", f"--model={tiny.path}"]
    line = error(*at, "--on-existing=overwrite")
    assert "403" in line
    assert line.endswith("use a key that may write to collection 'demo'")


def test_a_key_over_http_is_warned_of_in_one_line(
    server: Server,
    tiny: TinyModel,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert main(["add", *of(server, tiny), f"--api-key={SECRET}", "a.txt"]) == 0
    assert not capsys.readouterr().err  # on loopback nobody listens in
    assert not caplog.messages
    assert main(["add", "--collection=demo", "--url=http://h.invalid", "--api-key=x", "a.txt"]) == 1
    (warning,) = caplog.messages
    assert warning.startswith("http://h.invalid:6333: the key is sent without encryption")
    assert not recwarn


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        ("200 OK", PAGE, f"{NOT_QDRANT}: check --url, its port and --prefix"),
        ("200 OK", b"", f"{NOT_QDRANT}: check --url, its port and --prefix"),
        ("200 OK", b"{}", f"{NOT_QDRANT}: check --url, its port and --prefix"),
        ("200 OK", b'{"name": "<b>another</b>"}', f"{NOT_QDRANT}: check --url"),
        ("200 OK", b"[1, 2]", f"{NOT_QDRANT}: check --url, its port and --prefix"),
        ("404 Not Found", PAGE, "404 Not Found: check --url, its port and --prefix"),
        ("404 Not Found", b"", "404 without a reason; check the url, its port and its prefix"),
        ("405 Method Not Allowed", PAGE, "405 Method Not Allowed"),
        ("400 Bad Request", b"<b>sent to HTTPS port</b>", "wants TLS, use https://"),
        ("400 Bad Request", b"sent an HTTP request to an HTTPS server.", "use https://"),
    ],
)
def test_what_is_no_qdrant_is_said_without_its_page(
    status: str, body: bytes, message: str, error: Callable[..., str]
) -> None:
    with answering(status, body) as port:
        assert message in error(f"--url=http://127.0.0.1:{port}")


def test_another_place_is_said(error: Callable[..., str]) -> None:
    there = "Location: https://elsewhere:443/collections/demo\r\n"
    with answering("301 Moved Permanently", headers=there) as port:
        line = error(f"--url=http://127.0.0.1:{port}")
    assert "301 Moved Permanently" in line
    assert line.endswith("the server is at https://elsewhere:443, pass that as --url")


@pytest.mark.parametrize("status", ["403 Forbidden", "407 Proxy Authentication Required"])
def test_a_proxy_that_refuses_is_named(
    status: str, error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status) as port:
        for scheme in ("http", "https"):
            proxy = f"http://me:{SECRET}@127.0.0.1:{port}"
            monkeypatch.setenv(f"{scheme}_proxy", proxy)
            line = error(f"--url={scheme}://qdrant.example")
            assert status[:3] in line
            variable = f"127.0.0.1:{port} of {scheme.upper()}_PROXY"
            assert f"asked through the proxy {variable}; unset that" in line
            assert "NO_PROXY=qdrant.example" in line


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(("options", "name"), [([], "HTTP_PROXY"), (["--grpc"], "http_proxy")])
def test_a_proxy_that_is_not_there_is_named(
    options: list[str], name: str, error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:9")
    line = error("--url=http://qdrant.example", *options)
    assert f"asked through the proxy 127.0.0.1:9 of {name}" in line


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NO_PROXY", "localhost,[::1]", "in the environment variables of proxies: NO_PROXY"),
        ("ALL_PROXY", "socks5://127.0.0.1:9", "pip install 'httpx[socks]'"),
        ("HTTP_PROXY", "foo://127.0.0.1:9", "(HTTP_PROXY)"),
        ("SSL_CERT_FILE", "nowhere", "(SSL_CERT_FILE"),
    ],
)
def test_a_wrong_environment_is_named(
    name: str,
    value: str,
    message: str,
    error: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value)
    assert message in error("--url=https://127.0.0.1:9")


@pytest.mark.usefixtures("patience")
def test_another_protocol_on_the_port_is_said(
    grpc_server: Server, error: Callable[..., str]
) -> None:
    host, _, port = grpc_server.url.rpartition(":")
    for options in ([f"--url={host}:{grpc_server.grpc_port}"], ["--grpc", f"--grpc-port={port}"]):
        url = [] if options[0].startswith("--url") else [f"--url={host}"]
        start = time.monotonic()
        line = error(*options, *url)
        assert "another protocol" in line or "that the server runs" in line
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("grpc", [False, True])
def test_tls_needs_the_authority(
    grpc: bool,
    grpc_server: Server,
    tiny: TinyModel,
    certificates: Path,
    error: Callable[..., str],
) -> None:
    plain = grpc_server.grpc_port if grpc else int(grpc_server.url.rpartition(":")[2])
    assert plain is not None
    ca = f"--ca={certificates / 'ca.pem'}"
    with encrypted(certificates, plain) as port:

        def at(url: str) -> list[str]:
            return (
                [f"--url={url}", "--grpc", f"--grpc-port={port}"]
                if grpc
                else [f"--url={url}:{port}"]
            )

        model = ["--collection=demo", f"--model={tiny.path}"]
        assert main(["add", *at("https://localhost"), ca, *model, "a.txt"]) == 0
        assert main(["query", *at("https://localhost"), ca, *model, "one"]) == 0
        line = error(*at("https://localhost"))
        assert "CERTIFICATE_VERIFY_FAILED" in line
        assert "--ca FILE" in line
        wrong_name = error(*at("https://127.0.0.1"), ca)
        assert wrong_name.endswith("use a name of the server that is in its certificate")
        assert "whether its url begins with" in error(*at("http://localhost"))
    options = ["--grpc", f"--grpc-port={plain}"] if grpc else []
    url = "https://localhost" if grpc else f"https://localhost:{plain}"
    assert error(f"--url={url}", ca, *options).endswith("use http://")


@pytest.mark.parametrize("arguments", [["--help"], ["add", "--help"]])
def test_help_is_plain_ascii(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr().out.isascii()
