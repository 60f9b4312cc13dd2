"""Names that somebody could give to a column, a level, a file or a job, and a browser that shows what became of them."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

LIMIT = 90
"""Seconds for one page; a machine that is busy needs some."""

RUN = "document.title='ran'"


def strings(host: str) -> list[str]:
    """Thirty of them; whatever is fetched would be fetched from a host that keeps a list."""
    return [
        f"<script>{RUN}</script>",
        f"<script src={host}/1></script>",
        f"</script><script>{RUN}</script>",
        f'"><script>{RUN}</script>',
        f"'><script>{RUN}</script>",
        f"</title><script>{RUN}</script>",
        f"</style><script>{RUN}</script>",
        f"--><script>{RUN}</script>",
        f"]]><script>{RUN}</script>",
        f"</svg></text><script>{RUN}</script>",
        f"<svg/onload={RUN}>",
        f"<svg><script href={host}/2></script></svg>",
        f"<svg><image href='{host}/3'/></svg>",
        f"<img src=x onerror={RUN}>",
        f"<img src={host}/4>",
        f"<iframe src={host}/5></iframe>",
        f"<iframe srcdoc='<script>top.{RUN}</script>'></iframe>",
        f"<link rel=stylesheet href={host}/6>",
        f"<style>@import '{host}/7';</style>",
        f"<div style=background:url({host}/8)>",
        f"url({host}/9)",
        f"<object data={host}/10></object>",
        f"<meta http-equiv=refresh content='0;url={host}/11'>",
        f"<base href={host}/12/>",
        f"<a href=javascript:{RUN} autofocus onfocus={RUN}>x</a>",
        f"<details open ontoggle={RUN}>x</details>",
        "{{7*7}}{% for x in ().__class__.__base__.__subclasses__() %}{{x}}{% endfor %}",
        "${7*7}#{7*7}<%= 7*7 %>$\\frac{1}{2$",
        "\u202egnp.exe\u2066\u200bx\ufeff",
        "a\x1b[31mb\x08c\x7f",
    ]


class Keeper(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and keeps the paths that were asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        if self.path != "/favicon.ico":  # what the browser asks for by itself where no policy forbids it
            self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a folder on this machine, and what has been asked for there."""
    asked: list[str] = []
    handler = functools.partial(type("Own", (Keeper,), {"asked": asked}), directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def opened(url: str, profile: Path) -> str:
    """The page after a browser has shown it, as HTML."""
    assert CHROMIUM is not None
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", *quiet]
    done = subprocess.run(
        [*command, f"--user-data-dir={profile}", "--virtual-time-budget=2000", "--dump-dom", url],
        capture_output=True, text=True, timeout=LIMIT, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
