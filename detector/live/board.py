"""What the page shows: incidents, verdicts, scores. No I/O; one thread fills it, others ask."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from typing import Any

import orjson

from schemas.feedback import Feedback
from schemas.moment import parse_time

#: Incidents that are over, streams, and scores of each that are kept.
MOST_PAST, MOST_STREAMS, MOST_SCORES = 2000, 2000, 240

#: Incidents of a list, and past ones that are shown beside one.
LISTED, NEAREST = 200, 3

#: Likeness below which an incident is none of the nearest.
LEAST_LIKE = 0.3

RESOLVED = "residual.incident.resolved"


class Board:
    """Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._incidents: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._verdicts: dict[str, Feedback] = {}
        self._scores: OrderedDict[str, deque[tuple[int, float]]] = OrderedDict()
        self._models: dict[str, str] = {}

    # -- filling -----------------------------------------------------------------------------------------------------

    def alert(self, value: bytes | None) -> None:
        """An event of an incident; what is none is passed over."""
        try:
            event = orjson.loads(value or b"")
            data, stream, moment = event["data"], str(event["subject"]), parse_time(event["time"])
            incident = str(data["incident"])
        except (ValueError, TypeError, KeyError):
            return
        with self._lock:
            known = self._incidents.pop(incident, {"events": 0})
            shares = {str(one["name"]): float(one["share"] or 0) for one in data.get("channels", ())}
            drawn = any(one.get("observed_window") for one in data.get("channels", ()))
            self._incidents[incident] = {
                "id": incident, "stream": stream, "group": str(event.get("source", "")).rpartition("/")[2],
                "open": event["type"] != RESOLVED, "changed": moment // 1_000_000, "events": known["events"] + 1,
                "data": data if drawn or "drawn" not in known else known["data"], "now": data,
                "shares": shares or known.get("shares", {}),
            } | ({"drawn": True} if drawn or "drawn" in known else {})  # fmt: skip
            self._models[self._incidents[incident]["group"]] = str(data.get("model", ""))
            past = [key for key, one in self._incidents.items() if not one["open"]]
            for key in past[: max(len(past) - MOST_PAST, 0)]:
                del self._incidents[key]

    def feedback(self, key: bytes | None, value: bytes | None) -> None:
        """A verdict; none takes it back."""
        try:
            found = None if value is None else Feedback.from_bytes(value)
        except ValueError:
            return
        with self._lock:
            if found is not None:
                self._verdicts[found.incident] = found
            elif key is not None:
                self._verdicts.pop(key.decode(errors="replace"), None)

    def score(self, value: bytes | None) -> None:
        """The score of a reading."""
        try:
            found = orjson.loads(value or b"")
            stream, moment, score = str(found["stream"]), parse_time(found["timestamp"]), float(found["score"])
        except (ValueError, TypeError, KeyError):
            return
        with self._lock:
            own = self._scores.pop(stream, None) or deque(maxlen=MOST_SCORES)
            own.append((moment // 1_000_000, score))
            self._scores[stream] = own  # the one that was heard last comes last
            if len(self._scores) > MOST_STREAMS:
                self._scores.popitem(last=False)

    # -- asking ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything of the first page: open and past incidents, newest first, streams, worst first."""
        with self._lock:
            incidents = [self._short(one) for one in self._incidents.values()]
            opened = {one["stream"] for one in self._incidents.values() if one["open"]}
            streams: list[dict[str, Any]] = [
                {"stream": name, "open": name in opened, "scores": [[at, round(score, 3)] for at, score in own]}
                for name, own in self._scores.items()
            ]
            last = {name: own[-1][1] for name, own in self._scores.items()}
            models = dict(self._models)
            total = len(self._scores)
        incidents.sort(key=lambda one: one["changed"], reverse=True)  # partitions are read one after the other
        streams.sort(key=lambda one: (not one["open"], -last[one["stream"]]))
        return {
            "open": [one for one in incidents if one["open"]][:LISTED],
            "past": [one for one in incidents if not one["open"]][:LISTED],
            "streams": streams[:60], "streams_total": total, "models": models,
        }  # fmt: skip

    def incident(self, name: str) -> dict[str, Any] | None:
        """All of one, with the past ones that are most like it; None where it is not known."""
        with self._lock:
            found = self._incidents.get(name)
            if found is None:
                return None
            others = [one for one in self._incidents.values() if one is not found and not one["open"]]
            like = sorted(((likeness(found["shares"], one["shares"]), n) for n, one in enumerate(others)), reverse=True)
            near = [self._short(others[n]) | {"like": round(value, 3)} for value, n in like if value >= LEAST_LIKE]
            scores = [[at, round(score, 3)] for at, score in self._scores.get(found["stream"], ())]
            return self._short(found) | {
                "channels": found["data"].get("channels", []), "image": found["data"].get("image"),
                "nearest": near[:NEAREST], "scores": scores,
                "return_period_s": found["now"].get("return_period_s"), "ended": found["now"].get("ended"),
            }  # fmt: skip

    def _short(self, one: dict[str, Any]) -> dict[str, Any]:
        verdict, now = self._verdicts.get(one["id"]), one["now"]
        return {
            "id": one["id"], "stream": one["stream"], "group": one["group"], "open": one["open"],
            "kind": now.get("kind"), "severity": now.get("severity"), "opened": now.get("opened"),
            "changed": one["changed"], "summary": one["data"].get("summary") or now.get("summary"),
            "score": now.get("score"), "events": one["events"],
            "verdict": None if verdict is None else verdict.verdict.value, "by": verdict and verdict.by,
        }  # fmt: skip


def likeness(a: dict[str, float], b: dict[str, float]) -> float:
    """Cosine of two incidents' channel shares, 0 to 1."""
    product = sum(share * b.get(name, 0.0) for name, share in a.items())
    size = math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))
    return product / size if size > 0 else 0.0
