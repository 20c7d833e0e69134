"""Serving the page: where, to whom, and what is told before it begins."""

import asyncio
import errno
import ipaddress
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import panel as pn
from tornado.web import RequestHandler

from experiments.explore.config import Config
from experiments.explore.explored import Explored
from experiments.explore.page import LARGEST, page
from experiments.explore.route import ways
from experiments.explore.tab import SLOW, is_idle
from experiments.runtime import interrupts
from experiments.runtime.cli import UsageError

EVERYWHERE = "0.0.0.0"
QUIET = 4.0
"""Seconds after which what nobody has asked for yet is compiled, if all is quiet."""


class Alive(RequestHandler):
    """What a page whose server was gone asks for."""

    def get(self) -> None:
        """Says that there is a server."""
        self.set_header("Cache-Control", "no-store")
        self.write("alive")


def claimed(host: str, port: int) -> int:
    """The port, once it is known to be free.

    Raises:
        UsageError: it is taken, or the address is none of this machine's.
    """
    if ":" in host:
        raise UsageError(f"--host {host}: browsers are only checked by names and IPv4 addresses")
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
            return int(one.getsockname()[1])
        except (OSError, UnicodeError) as error:
            code = getattr(error, "errno", None)
            if code == errno.EADDRINUSE:
                raise UsageError(
                    f"port {port} is taken, perhaps by another explorer; choose another --port, "
                    "or --port 0 for any that is free"
                ) from None
            if code == errno.EACCES:
                raise UsageError(
                    f"port {port} is not for everybody; choose one above 1023"
                ) from None
            raise UsageError(f"--host {host} is no address of this machine") from None


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed(config: Config, port: int) -> list[str]:
    """The origins from which a page may talk to the server."""
    names = {config.host}
    if is_loopback(config.host):
        names |= {"127.0.0.1", "localhost"}
    elif config.host == EVERYWHERE:
        own = socket.gethostname()
        names = {own, "127.0.0.1", "localhost", *_addresses(own)}
    return sorted({f"{name}:{port}" for name in names} | set(config.origins))


def _addresses(name: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(name, None, socket.AF_INET)]
    except OSError:
        return []


def _warm(explored: Explored) -> None:
    """Compiles what a page will need, while nobody has asked for it."""
    latents = explored.codes.latents
    ways(explored.generator, latents[0], latents[1])
    for _ in explored.warm_sliders():
        pass


def _when_idle(loop: Any, call: Callable[[], None]) -> None:
    """Calls once nobody waits for anything: a first view shall not share its processors."""
    if is_idle():
        SLOW.submit(call)
    else:
        loop.call_later(QUIET, _when_idle, loop, call)


def again(words: Sequence[str], port: int) -> str:
    """The command that serves the same page at the same place.

    >>> again(["runs/demo"], 5006)
    'python -m experiments.explore runs/demo'
    >>> again(["runs/demo", "--port", "0"], 41000)
    'python -m experiments.explore runs/demo --port 41000'
    """
    kept = [*words]
    for place, word in enumerate(words):
        if word == "--port" and place + 1 < len(words):
            kept[place + 1] = str(port)
        elif word.startswith("--port="):
            kept[place] = f"--port={port}"
    return shlex.join(["python", "-m", "experiments.explore", *kept])


def serve(config: Config, explored: Explored, port: int) -> None:
    """Serves the page until somebody interrupts it."""
    pn.extension(notifications=False)
    if not is_loopback(config.host):
        print(
            f"warning: --host {config.host}: whoever reaches this machine may use the page; there "
            "is no password",
            flush=True,
        )
    command = again(sys.argv[1:], port)
    asyncio.set_event_loop(asyncio.new_event_loop())
    server: Any = pn.io.server.get_server(
        {"/": lambda: page(explored, command)},
        port=port,
        address=config.host,
        websocket_origin=allowed(config, port),
        title=explored.name,
        websocket_max_message_size=LARGEST,
        extra_patterns=[(r"/alive", Alive)],
        check_unused_sessions_milliseconds=5_000,
        unused_session_lifetime_milliseconds=10_000,
        show=False,
        start=False,
        verbose=False,
        admin=False,
        liveness=False,
    )
    server.start()
    server.io_loop.call_later(QUIET, _when_idle, server.io_loop, partial(_warm, explored))
    interrupts.rearm()
    shown = "localhost" if config.host == EVERYWHERE else config.host
    print(f"{explored.name}: explore it at http://{shown}:{port}/ (Ctrl-C ends it)", flush=True)
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        server.stop()
