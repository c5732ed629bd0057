"""A real Prometheus on loopback, for tests: started in a directory, fed by remote write, stopped again.

Remote write makes samples of any past or present instant visible within milliseconds, where scraping would take
seconds and know only the present. What goes over the wire is a protobuf of four small messages in snappy's block
format; both are a few lines here, so that the tests need no further library.
"""

import math
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import httpx

# Prometheus's marker for "this series has ended": a NaN with this payload (its model/value package).
STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]

_CONFIG = "storage: {tsdb: {out_of_order_time_window: 60d}}\n"  # tests write the past after the present


def binary() -> str | None:
    """Path of the machine's ``prometheus``, or None."""
    return shutil.which("prometheus")


class PrometheusServer:
    """One Prometheus. Use it as a context manager; ``stop`` and ``start`` make an outage in between.

    ``directory`` takes its configuration, data and log.
    """

    def __init__(self, directory: Path, *, flags: Iterable[str] = ()) -> None:
        """Start it and wait until it answers; RuntimeError with the end of its log if it does not."""
        self._directory = directory
        self._flags = tuple(flags)
        self._log = directory / "prometheus.log"
        self._listen = f"127.0.0.1:{_free_port()}"
        self.url = f"http://{self._listen}"
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=10)
        directory.mkdir(parents=True, exist_ok=True)
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._http.close()

    def start(self) -> None:
        """Start it, again with the data there are; see ``__init__``."""
        executable = binary()
        if executable is None:
            raise RuntimeError("no prometheus on PATH")
        config = self._directory / "prometheus.yml"
        config.write_text(_CONFIG, encoding="utf-8")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    executable,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self._listen}",
                    "--web.enable-remote-write-receiver",
                    *self._flags,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ.get("PATH", "")},
            )
        self._wait_until_ready(timedelta(seconds=20))

    def write(self, series: str, samples: Iterable[tuple[datetime, float]], **labels: str) -> None:
        """Append samples to one series, oldest first; they are visible to queries on return."""
        self.write_all([({"__name__": series, **labels}, samples)])

    def write_all(self, series: Iterable[tuple[Mapping[str, str], Iterable[tuple[datetime, float]]]]) -> None:
        """Append samples to many series, each given by all its labels (``__name__`` too), in one request."""
        request = b"".join(_field(1, _time_series(labels, samples)) for labels, samples in series)
        self._http.post(
            "/api/v1/write",
            content=_snappy(request),
            headers={
                "Content-Encoding": "snappy",
                "Content-Type": "application/x-protobuf",
                "X-Prometheus-Remote-Write-Version": "0.1.0",
            },
        ).raise_for_status()

    def stop(self) -> None:
        """End it; harmless when it has ended. Its data stay."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self, patience: timedelta) -> None:
        give_up = time.monotonic() + patience.total_seconds()
        while time.monotonic() < give_up and self._process.poll() is None:
            try:
                if self._http.get("/-/ready").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"prometheus did not start: {self._log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _time_series(labels: Mapping[str, str], samples: Iterable[tuple[datetime, float]]) -> bytes:
    # Prometheus refuses labels that are not sorted by name.
    pairs = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in sorted(labels.items())
    )
    points = b"".join(
        _field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(math.floor(at.timestamp() * 1000 + 0.5)))
        for at, value in samples
    )
    return pairs + points


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _snappy(content: bytes) -> bytes:
    # A literal element holds up to 2**16 bytes: tag 61, two bytes of length minus one.
    chunks = (content[start : start + 0x10000] for start in range(0, len(content), 0x10000))
    return _varint(len(content)) + b"".join(
        bytes([61 << 2]) + struct.pack("<H", len(chunk) - 1) + chunk for chunk in chunks
    )
