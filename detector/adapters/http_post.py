"""A body posted to an address, and what came of it in three words: taken, refused, not now."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException

#: Seconds that an answer may take.
TIMEOUT_S = 5.0

#: Bytes of an answer that are looked at.
MOST_BYTES = 4096

#: Refusals that another time may not be given (RFC 9110, RFC 8470, RFC 6585).
NOT_NOW = frozenset({408, 425, 429})


class RefusedError(Exception):
    """It will never be taken; the text says why."""


class NotNowError(Exception):
    """It may be taken later; the text says why. ``after_s``: not before so many seconds."""

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.after_s = after_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A body goes where it was meant to go, or nowhere."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    """POST ``body`` to ``url`` (http or https). Raises RefusedError or NotNowError."""
    request = urllib.request.Request(url, body, dict(headers))  # noqa: S310 — the settings see to the scheme
    try:
        with _opener.open(request, timeout=TIMEOUT_S) as answer:
            answer.read(MOST_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            raise _failed(error) from None
    except (OSError, HTTPException) as error:  # URLError is an OSError
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise NotNowError(f"its certificate is not accepted: {reason.verify_message}") from None
        why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise NotNowError(str(why).lower()) from None
    except ValueError as error:
        raise RefusedError(str(error)) from None


def _failed(error: urllib.error.HTTPError) -> Exception:
    said = " ".join(error.read(MOST_BYTES).decode(errors="replace").split())[:200]
    why = f"status {error.code}" + (f": {said}" if said else "")
    if error.code in NOT_NOW or error.code >= 500:
        after = error.headers.get("Retry-After", "")
        return NotNowError(why, float(after) if after.isdecimal() else 0.0)
    return RefusedError(why)
