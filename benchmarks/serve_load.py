"""What does `tailwise serve` bear? Speed beside a bare echo server, a soak with swaps, and hostile bodies. JSON lines.

    python benchmarks/serve_load.py speed [--seconds 10] [--connections 16] [--rounds 3]
    python benchmarks/serve_load.py soak [--seconds 600] [--rate 60]
    python benchmarks/serve_load.py hostile [--bodies 1000]
    python benchmarks/serve_load.py schemathesis [--examples 200] [--command schemathesis]
    python benchmarks/serve_load.py --page results/serve.jsonl

Everything is on loopback, and bounded in time and number. The run is a fit without options on 2,000 generated rows of 8
numbers in five kinds. Speed: connections that ask for one row after another, of the service and of an echo server on
the same HTTP stack in turn, each in a process of its own; the asker has a third. CPU seconds are those of the server's
process, because a machine may be shared. Soak: a steady rate of rows, while the run is exchanged for another every ten
seconds; resident memory is read every ten seconds. Hostile: bodies drawn with a seed (cut off, random bytes, wrong
types, numbers out of range, deep, too large), each held to an answer of 4xx, or 200 where it happens to be good, and to
name no path. Schemathesis asks what the OpenAPI description allows, and what it does not; `--command` says how it is
called.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

import tailwise
from tailwise.benchmark import rows as benchmark_rows

ECHO = """
import sys, socket
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def echo(request):
    return Response(await request.body(), media_type="application/json")

at = socket.socket(proto=socket.IPPROTO_TCP)
at.bind(("127.0.0.1", 0))
at.listen(2048)
print(f"echo at http://127.0.0.1:{at.getsockname()[1]}", file=sys.stderr, flush=True)
app = Starlette(routes=[Route("/runs/parts/score", echo, methods=["POST"])])
uvicorn.Server(uvicorn.Config(app, http="h11", log_config=None, access_log=False)).run(sockets=[at])
"""
_SECONDS_BETWEEN_SWAPS = 10.0
_PATHS = re.compile(r"/(?:tmp|home|root|usr|var|etc|work)/")


def data(seed: int, shift: float = 0.0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    kinds = generator.choice(5, size=2_000, p=(0.4, 0.3, 0.15, 0.1, 0.05))
    values = generator.normal(size=(2_000, 8)) + generator.normal(scale=6, size=(5, 8))[kinds] + shift
    return pd.DataFrame(values, columns=[f"x{i}" for i in range(8)])


def fitted(folder: Path) -> list[Path]:
    """Two runs."""
    runs = []
    for name, shift in (("first", 0.0), ("second", 1.0)):
        data(0, shift).to_csv(folder / f"{name}.csv", index=False)
        runs.append(tailwise.fit(str(folder / f"{name}.csv"), out=folder / name).path)
    return runs


@contextmanager
def started(command: Sequence[str]) -> Iterator[tuple[int, psutil.Process]]:
    """The port and the process of a server, which is told to stop in the end."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = None
        while found is None:
            line = process.stderr.readline()
            if not line:
                raise SystemExit("the server did not start")
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        try:
            yield int(found[1]), psutil.Process(process.pid)
        finally:
            process.terminate()
            process.stderr.close()
            process.wait(60)


def service(run: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tailwise", "serve", f"parts={run}", "--port", "0", *options]


def request(body: bytes, kind: str = "application/json", path: str = "/runs/parts/score") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: (\d+)", head)
    return int(head.split()[1]), await reader.readexactly(int(length[1]) if length else 0)


class Asker:
    """Connections that ask for rows, and what came of it."""

    def __init__(self, port: int, table: pd.DataFrame) -> None:
        self.port, self.seconds, self.statuses = port, list[float](), Counter[int]()
        self.fingerprints: Counter[str] = Counter()
        self.lost = 0
        rows = table.to_numpy().round(4).tolist()
        self.requests = [request(json.dumps({"rows": [row]}).encode()) for row in rows]

    async def connection(self, until: float, every: float, first: int) -> None:
        """One row after another, at most one each `every` seconds."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        place = first
        while (now := time.perf_counter()) < until:
            try:
                writer.write(self.requests[place % len(self.requests)])
                status, body = await answer(reader)
            except (OSError, asyncio.IncompleteReadError):
                self.lost += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                continue
            self.seconds.append(time.perf_counter() - now)
            self.statuses[status] += 1
            if b'"fingerprint"' in body:
                self.fingerprints[json.loads(body)["fingerprint"][:8]] += 1
            place += 7
            if every:
                await asyncio.sleep(max(0.0, every - (time.perf_counter() - now)))
        writer.close()

    async def ask(self, seconds: float, connections: int, rate: float = 0.0) -> None:
        until = time.perf_counter() + seconds
        every = connections / rate if rate else 0.0
        await asyncio.gather(*(self.connection(until, every, 31 * i) for i in range(connections)))


def speed(seconds: float, connections: int, rounds: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        run = fitted(Path(folder))[0]
        servers = {"echo": [sys.executable, "-c", ECHO], "service": service(run)}
        for number in range(rounds):
            for name, command in servers.items():
                with started(command) as (port, process):
                    asyncio.run(Asker(port, data(1)).ask(1.0, connections))  # the first are slower
                    asker, before = Asker(port, data(1)), process.cpu_times()
                    began = time.perf_counter()
                    asyncio.run(asker.ask(seconds, connections))
                    taken, after = time.perf_counter() - began, process.cpu_times()
                cpu = after.user + after.system - before.user - before.system
                quantiles = np.quantile(asker.seconds, (0.5, 0.99)) * 1_000
                yield {
                    "what": "speed", "server": name, "round": number, "connections": connections,
                    "requests": len(asker.seconds), "a_second": len(asker.seconds) / taken,
                    "median_ms": quantiles[0], "p99_ms": quantiles[1], "cpu_ms": 1_000 * cpu / len(asker.seconds),
                    "statuses": dict(asker.statuses), "lost": asker.lost, "load": os.getloadavg()[0],
                    "cores": os.cpu_count(),
                }  # fmt: skip


def soak(seconds: float, rate: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        runs, link = fitted(Path(folder)), Path(folder) / "current"
        link.symlink_to(runs[0])
        memory: list[float] = []
        swaps = 0

        async def swap(process: psutil.Process, until: float) -> None:
            nonlocal swaps
            while time.perf_counter() < until - _SECONDS_BETWEEN_SWAPS:
                await asyncio.sleep(_SECONDS_BETWEEN_SWAPS)
                memory.append(process.memory_info().rss / 1e6)
                swaps += 1
                (Path(folder) / "beside").symlink_to(runs[swaps % 2])
                os.replace(Path(folder) / "beside", link)

        async def both(asker: Asker, process: psutil.Process) -> None:
            await asyncio.gather(asker.ask(seconds, 4, rate), swap(process, time.perf_counter() + seconds))

        with started(service(link, "--look-seconds", "1")) as (port, process):
            asker = Asker(port, data(1))
            asyncio.run(both(asker, process))
            memory.append(process.memory_info().rss / 1e6)
        settled = np.array(memory[_settled(memory) :])
        a_look = np.polyfit(np.arange(len(settled)), settled, 1)[0] if len(settled) > 2 else 0.0
        return {
            "what": "soak", "seconds": seconds, "rate": rate, "requests": len(asker.seconds), "swaps": swaps,
            "versions_seen": len(asker.fingerprints), "statuses": dict(asker.statuses), "lost": asker.lost,
            "memory_mb": [round(value, 1) for value in memory],
            "growth_mb_a_minute": float(a_look) * 60 / _SECONDS_BETWEEN_SWAPS,
            "median_ms": float(np.median(asker.seconds)) * 1_000,
            "p99_ms": float(np.quantile(asker.seconds, 0.99)) * 1_000, "load": os.getloadavg()[0],
        }  # fmt: skip


def bodies(count: int, seed: int) -> Iterator[tuple[str, bytes, str]]:
    """Bodies of kinds that nobody should send: the sort, the bytes, the media type."""
    draw = random.Random(seed)
    good = json.dumps({"rows": data(2).to_numpy()[:3].tolist()}).encode()
    table = data(2)[:5].to_csv(index=False).encode()
    odd = ["null", "true", '"a"', "[]", "{}", "1e999", "-0", "NaN", "1e308", "9" * 500, '"\\ud800"', "0.1e-999"]

    def mutated(content: bytes) -> bytes:
        parts = bytearray(content)
        for _ in range(draw.randint(1, 8)):
            parts[draw.randrange(len(parts))] = draw.randrange(256)
        return bytes(parts)

    makers = {
        "cut off": lambda: (good[: draw.randrange(len(good))], "application/json"),
        "random bytes": lambda: (draw.randbytes(draw.randint(0, 4_000)), draw.choice(["application/json", "text/csv"])),
        "mutated JSON": lambda: (mutated(good), "application/json"),
        "mutated CSV": lambda: (mutated(table), "text/csv"),
        "odd values": lambda: (
            ('{"rows": [[' + ", ".join(draw.choice(odd) for _ in range(8)) + "]]}").encode(),
            "application/json",
        ),
        "deep": lambda: (b'{"rows": ' + b"[" * draw.randint(10, 200_000), "application/json"),
        "image": lambda: (draw.randbytes(500), draw.choice(["image/png", "image/tiff", "image/jpeg"])),
        "too large": lambda: (b" " * 1_100_000, "application/json"),
        "other type": lambda: (good, draw.choice(["text/html", "application/xml", "", "multipart/form-data"])),
        "wide": lambda: (json.dumps({"rows": [[0.0] * draw.choice([1, 7, 9, 20_000])]}).encode(), "application/json"),
    }
    for number in range(count):
        sort = list(makers)[number % len(makers)]
        yield (sort, *makers[sort]())


def hostile(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each sort of body."""
    found: dict[str, Counter[int]] = {}
    paths = 0

    async def ask(port: int) -> None:
        nonlocal paths
        for sort, body, kind in bodies(count, seed):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request(body, kind))
                status, said = await asyncio.wait_for(answer(reader), 60)
            except (OSError, asyncio.IncompleteReadError):
                status, said = 0, b""  # it hung up while the body was still coming
            writer.close()
            found.setdefault(sort, Counter())[status] += 1
            paths += bool(_PATHS.search(said.decode("utf-8", "replace")))

    async def slow(port: int) -> None:
        async def one(sent: bytes) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            status = int((await asyncio.wait_for(reader.readuntil(b"\r\n"), 60)).split()[1])
            writer.close()
            found.setdefault("slow", Counter())[status] += 1

        whole = request(b'{"rows": [[0]]}')
        await asyncio.gather(*(one(whole[: (len(whole) - 1) * i // 20]) for i in range(1, 21)))

    with tempfile.TemporaryDirectory() as folder:
        run = fitted(Path(folder))[0]
        with started(service(run, "--body-mb", "1", "--body-seconds", "1")) as (port, process):
            asyncio.run(ask(port))
            asyncio.run(slow(port))
            asker = Asker(port, data(1))
            asyncio.run(asker.ask(0.5, 1))
            alive = process.is_running() and set(asker.statuses) == {200}
    for sort, statuses in found.items():
        yield {
            "what": "hostile", "sort": sort, "bodies": sum(statuses.values()),
            "answers": dict(sorted(statuses.items())),
            "answers_with_paths_in_all": paths, "answers_afterwards": alive,
        }  # fmt: skip


def schemathesis(examples: int, command: str) -> dict[str, Any]:
    checks = (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    )
    options = {"--max-examples": examples, "--seed": 1, "--generation-database": "none", "--checks": ",".join(checks)}
    with tempfile.TemporaryDirectory() as folder:
        run = fitted(Path(folder))[0]
        with started(service(run)) as (port, _):
            words = [command, "run", f"http://127.0.0.1:{port}/openapi.json"]
            words += [str(word) for option in options.items() for word in option]
            done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    said = done.stdout + done.stderr
    if done.returncode not in (0, 1):
        raise SystemExit(said)
    generated = re.search(r"(\d+) generated", said)
    return {
        "what": "schemathesis", "examples": examples, "passed": done.returncode == 0,
        "cases": int(generated[1]) if generated else None, "server_errors": said.count("Server error"),
    }  # fmt: skip


def _settled(memory: Sequence[float]) -> int:
    """From where on memory is compared: the first minute fills caches of the allocator."""
    return min(6, len(memory) // 2)


def page(rows: Sequence[dict[str, Any]]) -> str:
    sections = {"speed": _speed, "soak": _soak, "hostile": _hostile, "schemathesis": _schemathesis}
    parts = [_HEAD]
    for what, section in sections.items():
        if own := [row for row in rows if row["what"] == what]:
            parts += section(own)
    return "\n".join(parts).rstrip() + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines] + [""]


def _speed(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for connections, server in sorted({(row["connections"], row["server"]) for row in rows}):
        own = [row for row in rows if (row["connections"], row["server"]) == (connections, server)]
        mean = {key: np.mean([row[key] for row in own]) for key in ("median_ms", "p99_ms", "cpu_ms")}
        each = ", ".join(f"{row['a_second']:.0f}" for row in own)
        lines.append([server, connections, each, *(f"{mean[key]:.{2 if key == 'cpu_ms' else 0}f}" for key in mean)])
    head = ["server", "connections", "requests a second, by round", "median ms", "p99 ms", "CPU ms a request"]
    loads, statuses = [row["load"] for row in rows], Counter[str]()
    for row in rows:
        statuses.update(row["statuses"])
    return [
        "## Speed\n",
        *_table(head, lines),
        f"Statuses of all: {_told(statuses)}; lost: {sum(row['lost'] for row in rows)}. The machine had "
        f"{rows[0]['cores']} cores and was shared: its load was {min(loads):.1f} to {max(loads):.1f}.",
        "So requests a second are what was left over, and only CPU says what an idle machine would bear.\n",
    ]


def _soak(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        other = sum(count for status, count in row["statuses"].items() if str(status) != "200")
        memory = row["memory_mb"]
        lines.append(
            [
                f"{row['seconds']:.0f}",
                row["requests"],
                row["swaps"],
                other,
                row["lost"],
                f"{memory[_settled(memory)]:.1f}",
                f"{memory[-1]:.1f}",
                f"{row['growth_mb_a_minute']:.2f}",
            ]
        )
    head = ["seconds", "requests", "swaps", "not 200", "lost", "MB after a minute", "MB at the end", "growth a minute"]
    return ["## Soak\n", *_table(head, lines)]


def _hostile(rows: Sequence[dict[str, Any]]) -> list[str]:
    alive = "answered" if all(row["answers_afterwards"] for row in rows) else "did not answer"
    return [
        "## Hostile bodies\n",
        *_table(["sort", "bodies", "answers"], [[row["sort"], row["bodies"], _told(row["answers"])] for row in rows]),
        f"Answers that name a path of the server: {rows[0]['answers_with_paths_in_all']}. The service {alive} later.",
        "A mutated body that is answered by 200 is still a good one; 0 is a connection that was ended while the body",
        "was still coming.\n",
    ]


def _schemathesis(rows: Sequence[dict[str, Any]]) -> list[str]:
    said = [
        f"{row['cases']} cases ({row['examples']} examples an operation): "
        f"{'all checks passed' if row['passed'] else 'not all checks passed'}; {row['server_errors']} server errors."
        for row in rows
    ]
    return ["## Schemathesis\n", *said, ""]


def _told(counts: Any) -> str:
    return ", ".join(f"{count} x {status}" for status, count in sorted(counts.items(), key=lambda item: str(item[0])))


_HEAD = """# What the service bears

Written from results/serve.jsonl by benchmarks/serve_load.py, which says how each figure was made.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("speed", "soak", "hostile", "schemathesis"))
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=60.0)
    parser.add_argument("--bodies", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--command", default="schemathesis")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    if options.page:
        print(page(benchmark_rows.read_all(options.page)), end="")
        return
    made: dict[str, Any] = {
        "speed": lambda: speed(options.seconds or 10.0, options.connections, options.rounds),
        "soak": lambda: [soak(options.seconds or 600.0, options.rate)],
        "hostile": lambda: hostile(options.bodies, options.seed),
        "schemathesis": lambda: [schemathesis(options.examples, options.command)],
    }
    for row in made[options.what or "speed"]():
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
