"""Finished runs behind HTTP: rows or an image in, what `tailwise score` writes out.

This module knows HTTP and nothing of runs: who may ask, how much and for how long, and which status says what.
`Answering` is what it asks. Of a request that cannot be answered the status tells whose fault that is: 4xx is the
asker's; 429 and 503 say that there is too much to do. An answer names no path of the server.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import uvicorn
from h11 import LocalProtocolError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from .. import __version__
from ..core import messages
from ..errors import InputError
from . import openapi
from .batching import Batcher
from .limits import Limits
from .service_metrics import CONTENT_TYPE, Metrics

_CSV = "text/csv"
# A head longer than this is refused by the parser.
_HEAD_BYTES = 16_384


@dataclass(frozen=True)
class Body:
    """Samples that somebody sent.

    Attributes:
        content: the bytes.
        kind: its media type, one of `openapi.KINDS`.
        explain: whether to say why the samples have their scores.
        maps: whether to draw where in each sample the score comes from.
    """

    content: bytes
    kind: str
    explain: bool = False
    maps: bool = False


@dataclass(frozen=True)
class Scored:
    """The answer to a body: the version of the run that scored it, and a dict for each sample."""

    fingerprint: str
    samples: Sequence[Mapping[str, Any]]


class Answering(Protocol):
    """Runs by name, which may change while the service is up."""

    @property
    def names(self) -> Sequence[str]:
        """The runs."""
        ...

    def facts(self, name: str) -> Mapping[str, Any]:
        """What there is to know of a run, its fingerprint among it."""
        ...

    def score(self, name: str, bodies: Sequence[Body]) -> Sequence[Scored | BaseException]:
        """Answers [n] to bodies [n]; an InputError where a body cannot be scored."""
        ...

    def csv(self, scored: Scored) -> str:
        """The table of an answer."""
        ...

    def renew(self, name: str) -> bool | None:
        """Take the new version of a run, if there is one: whether that worked, None where there is none."""
        ...


class _Service:
    """The handlers, and what they share."""

    def __init__(self, runs: Answering, limits: Limits, token: str) -> None:
        self.runs, self.limits, self.token = runs, limits, token
        self.metrics = Metrics()
        self.waiting = dict.fromkeys(runs.names, 0)
        self.batchers: dict[str, Batcher[Body, Scored]] = {}

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> Any:
        """A thread for each run, and one that looks for new versions."""
        for name in self.runs.names:
            self.batchers[name] = Batcher(partial(self.runs.score, name), f"score {name}")
        looking = asyncio.create_task(self._look())
        yield
        looking.cancel()
        for batcher in self.batchers.values():
            batcher.stop()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self.limits.look_seconds)
            for name in self.runs.names:
                taken = await asyncio.to_thread(self._renewed, name)
                if taken is not None:
                    self.metrics.renewed(name, taken)

    def _renewed(self, name: str) -> bool | None:
        """What `renew` says of a run; False where it fails, which is no reason to look no more."""
        try:
            return self.runs.renew(name)
        except Exception as error:
            messages.error(f"{name}: looking for a new version failed: {type(error).__name__}: {error}")
            return False

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def version(self, _: Request) -> Response:
        return JSONResponse({"tailwise": __version__})

    async def description(self, _: Request) -> Response:
        return JSONResponse(openapi.description(self.runs.names, self.limits, bool(self.token)))

    async def all_runs(self, _: Request) -> Response:
        return JSONResponse({"runs": [self.runs.facts(name) for name in self.runs.names]})

    async def one_run(self, request: Request) -> Response:
        return JSONResponse(self.runs.facts(self._name(request)))

    async def counts(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def score(self, request: Request) -> Response:
        """Scores of what is in the body."""
        name, started, status = self._name(request), time.perf_counter(), 500
        try:
            response = await self._scored(name, request)
            status = response.status_code
            return response
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            self.metrics.answered(name, status, time.perf_counter() - started)

    async def _scored(self, name: str, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in openapi.KINDS:
            raise HTTPException(415, f"a body of {', '.join(openapi.KINDS)} was needed: got {kind[:60] or 'no type'!r}")
        wants = _wants(request)
        with self._admitted(name):
            body = Body(await self._body(request), kind, **wants)
            try:
                async with asyncio.timeout(self.limits.seconds):
                    scored = await self.batchers[name].ask(body)
            except TimeoutError as error:
                raise HTTPException(503, f"no answer within {self.limits.seconds:g} s", {"Retry-After": "1"}) from error
            except InputError as error:
                return _refusal(422, error.message, error.hint)
        self.metrics.scored(name, scored.samples)
        headers = {"X-Tailwise-Fingerprint": scored.fingerprint}
        if _CSV in request.headers.get("accept", "") and not (body.explain or body.maps):
            return Response(self.runs.csv(scored), media_type=_CSV, headers=headers)
        content = {"run": name, "fingerprint": scored.fingerprint, "samples": list(scored.samples)}
        return JSONResponse(content, headers=headers)

    def _name(self, request: Request) -> str:
        name = str(request.path_params["run"])
        if name not in self.waiting:
            raise HTTPException(404, f"no run is called {name[:60]!r}: there are {', '.join(self.runs.names)}")
        return name

    @contextmanager
    def _admitted(self, name: str) -> Iterator[None]:
        """A place in the run's queue."""
        if self.waiting[name] >= self.limits.queue:
            raise HTTPException(429, f"{self.limits.queue} requests wait already", {"Retry-After": "1"})
        self.waiting[name] += 1
        self.metrics.waiting(name, 1)
        try:
            yield
        finally:
            self.waiting[name] -= 1
            self.metrics.waiting(name, -1)

    async def _body(self, request: Request) -> bytes:
        most = self.limits.body_bytes
        too_large = HTTPException(413, f"a body of at most {self.limits.body_mb} MB was needed")
        if int(request.headers.get("content-length") or 0) > most:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    if size > most:
                        raise too_large
        except TimeoutError as error:
            raise HTTPException(408, f"the body did not arrive within {self.limits.body_seconds:g} s") from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the connection ended before the body") from error
        return b"".join(parts)


def _wants(request: Request) -> dict[str, bool]:
    """What the query asks for beside scores."""
    wanted = {}
    for option, name in (("explain", "explain"), ("map", "maps")):
        said = request.query_params.getlist(option)
        if said not in ([], ["true"], ["false"]):
            raise HTTPException(422, f"{option} is true or false: got {','.join(said)[:60]!r}")
        wanted[name] = said == ["true"]
    return wanted


def _refusal(status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "hint": hint}}, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _refusal(error.status_code, error.detail, headers=error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    """A fault of ours: whoever runs the service reads it in the log, whoever asked does not."""
    return _refusal(500, "the service failed at this request", "its log says why")


def application(runs: Answering, limits: Limits, token: str = "") -> Starlette:
    """The service as an ASGI application.

    Args:
        runs: what answers.
        limits: how much it takes.
        token: what an `Authorization: Bearer` header must hold; "" asks for none. /health asks for none.
    """
    service = _Service(runs, limits, token)

    def held(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if token and not hmac.compare_digest(given, f"Bearer {token}".encode()):
                raise HTTPException(401, "a token was needed", {"WWW-Authenticate": "Bearer"})
            return await handler(request)

        return answer

    routes = [
        Route("/health", service.health),
        Route("/version", held(service.version)),
        Route("/openapi.json", held(service.description)),
        Route("/metrics", held(service.counts)),
        Route("/runs", held(service.all_runs)),
        Route("/runs/{run}", held(service.one_run)),
        Route("/runs/{run}/score", held(service.score), methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {HTTPException: _refused, Exception: _failed}
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=service.lifespan)


class _Impatient(H11Protocol):
    """Uvicorn's protocol, which also ends connections on which no whole head arrives."""

    patience = Limits().body_seconds

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(self.patience, self._look_again, None)

    def _look_again(self, before: Any) -> None:
        """End a connection on which nothing was asked since the last look, when `before` was the last request."""
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is before:
            with suppress(LocalProtocolError):  # an answer to the last request was the last on this connection
                self.send_400_response("The head of a request did not arrive in time.")
            self.transport.close()
            return
        self.loop.call_later(self.patience, self._look_again, self.cycle if idle else _BUSY)


_BUSY = object()


def listening(host: str, port: int) -> socket.socket:
    """A socket that waits at this address; port 0 takes a free one.

    Raises:
        InputError: the address is not this machine's, or another program is there.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sends what it has at once only on sockets that name their protocol; others wait 40 ms for more.
        at = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            at.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
            at.bind(address)
            at.listen(2_048)
        except BaseException:
            at.close()
            raise
        return at
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen at {host} port {port}: {error}", "choose another --host or --port") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can ask there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server(runs: Answering, limits: Limits, token: str = "") -> uvicorn.Server:
    """What answers on a socket that is handed to its `run`, until `should_exit` or a signal; what was asked before that
    is answered."""
    patient = type("Patient", (_Impatient,), {"patience": limits.body_seconds})
    config = uvicorn.Config(
        application(runs, limits, token),
        http=patient,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_keep_alive=max(1, round(limits.body_seconds)),
        timeout_graceful_shutdown=round(limits.seconds) + 1,
    )
    return uvicorn.Server(config)


def run(runs: Answering, at: socket.socket, limits: Limits, token: str = "") -> None:
    """Answer until SIGTERM or SIGINT."""
    host, port = at.getsockname()[:2]
    messages.progress(f"{', '.join(runs.names)} at http://{f'[{host}]' if ':' in host else host}:{port}")
    with suppress(KeyboardInterrupt):  # raised again once everything is answered
        server(runs, limits, token).run(sockets=[at])
