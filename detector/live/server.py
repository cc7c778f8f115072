"""The page over HTTP: three files, what the board knows as JSON, and two things that an operator can say.

There is no login: whoever reaches the port can read, and judge unless the page is ``read_only``. What a browser sends
on behalf of another site is refused: a request that changes something has to be JSON with a header that forms cannot
send, and every request has to name this host (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson

from detector.adapters.http_server import LOOPBACK, TEXT, Handler, Listening
from detector.live.board import Board
from schemas.errors import ResidualError

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}

JSON = "application/json"

#: Nothing from elsewhere, and no script that stands in the page.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"  # noqa: E501
#: A report has its style within, and no script.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"

#: Says (incident, what: true, false or accept, who); raises our errors.
Judge = Callable[[str, str, str | None], str]


class PageServer:
    """Serves ``address``, see ``Listening``. ``judge`` None: nobody can. ``report``: of the model, HTML."""

    def __init__(
        self, address: str, board: Board, judge: Judge | None, report: Path | None = None, hosts: tuple[str, ...] = ()
    ) -> None:
        class Bound(_Handler):
            pass

        Bound.board, Bound.judge, Bound.report = board, staticmethod(judge) if judge else None, report
        Bound.hosts = frozenset(hosts)
        Bound.contents = {
            path: ((files("detector.live") / "files" / name).read_bytes(), kind) for path, (name, kind) in FILES.items()
        }
        self._listening = Listening(address, Bound, "page")
        host = self._listening.host
        Bound.hosts |= {host, *(LOOPBACK if host in LOOPBACK else ())}
        Bound.any_host = host in ("0.0.0.0", "::") and not hosts  # noqa: S104 — who asks so wants it

    @property
    def url(self) -> str:
        """Where it is."""
        return self._listening.url

    def close(self) -> None:
        """Stop listening."""
        self._listening.close()


class _Handler(Handler):
    board: Board
    judge: Any
    report: Path | None
    hosts: frozenset[str]
    any_host: bool
    contents: dict[str, tuple[bytes, str]]

    def do_GET(self) -> None:  # noqa: N802 — the name that http.server calls
        path = self.path.partition("?")[0]
        if not self._is_meant():
            self._refuse(421, "this page is not called so: name it with --hosts")
        elif path in self.contents:
            body, kind = self.contents[path]
            self._say(200, kind, body)
        elif path == "/api/state":
            more = {"can_judge": self.judge is not None, "has_report": self._has_report()}
            self._say(200, JSON, orjson.dumps(self.board.state() | more))
        elif path.startswith("/api/incident/"):
            found = self.board.incident(unquote(path.removeprefix("/api/incident/")))
            if found is None:
                self._refuse(404, "no such incident is remembered")
            else:
                self._say(200, JSON, orjson.dumps(found))
        elif path == "/report" and self.report is not None and self._has_report():
            self.answer(
                200, "text/html; charset=utf-8", self.report.read_bytes(), Content_Security_Policy=REPORT_POLICY,
                X_Content_Type_Options="nosniff",
            )  # fmt: skip
        else:
            self._refuse(404, "there is nothing here")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:  # noqa: N802
        """``/api/judge`` {incident, what, by}."""
        if self.path != "/api/judge":
            self._refuse(404, "there is nothing here")
        elif not self._is_meant() or self.headers.get("X-Residual") != "page" or not self._is_json():
            self._refuse(403, "only the page itself may ask this")
        elif self.judge is None:
            self._refuse(403, "this page only shows (--read-only)")
        else:
            self._judge()

    def _judge(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", ""))
            asked = orjson.loads(self.rfile.read(length))
            incident, what, by = str(asked["incident"]), str(asked["what"]), asked.get("by") or None
            if what not in ("true", "false", "accept") or not (by is None or isinstance(by, str)):
                raise ValueError("what")
        except (ValueError, TypeError, KeyError, AttributeError):
            self._refuse(400, "say which incident, and whether it is true, false or to be accepted")
            return
        try:
            self._say(200, JSON, orjson.dumps({"said": self.judge(incident, what, by)}))
        except ResidualError as error:
            self._refuse(503 if error.exit_code == 75 else 409, str(error))

    def _is_json(self) -> bool:
        return self.headers.get("Content-Type", "").partition(";")[0].strip() == JSON

    def _is_meant(self) -> bool:
        host = self.headers.get("Host", "")
        name = host[: host.rindex("]") + 1].strip("[]") if "]" in host else host.partition(":")[0]
        origin = self.headers.get("Origin")
        return (self.any_host or name in self.hosts) and origin in (None, f"http://{host}", f"https://{host}")

    def _has_report(self) -> bool:
        return self.report is not None and self.report.is_file()

    def _say(self, status: int, kind: str, body: bytes) -> None:
        self.answer(
            status, kind, body, Content_Security_Policy=POLICY, X_Content_Type_Options="nosniff",
            Referrer_Policy="no-referrer", Cache_Control="no-store",
        )  # fmt: skip

    def _refuse(self, status: int, why: str) -> None:
        self._say(status, TEXT, f"{why}\n".encode())
