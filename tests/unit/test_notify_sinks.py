"""Where notices go: what is sent, and that a secret is neither taken from a command line nor shown."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from alertmanager import Receiver

from detector import cli
from detector.adapters.http_post import NotNowError, RefusedError, post
from detector.notify.sinks import EXAMPLE, Alertmanager, Lines, Webhook
from schemas.alert import Severity
from schemas.errors import SettingsError
from schemas.notice import Happened
from schemas.notify import NotifySettings


def test_a_secret_is_no_flag_and_is_not_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["notify", "--webhook", "http://x", "--webhook-token", "hunter2"]) == 2
    said = capsys.readouterr().err
    assert "RESIDUAL_NOTIFY_WEBHOOK_TOKEN" in said
    assert "hunter2" not in said
    (tmp_path / "url").write_text("https://hooks.example/T0/secret\n")
    settings = NotifySettings.load({"webhook_file": str(tmp_path / "url"), "webhook_token_file": str(tmp_path / "url")})
    assert settings.bearer == "https://hooks.example/T0/secret"
    assert settings.webhook_url == "https://hooks.example/T0/secret"
    assert "T0" not in repr(settings)


def test_a_reader_that_has_gone_stops_nobody() -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(NotNowError, match="Broken pipe"):
        Lines(Gone()).deliver([EXAMPLE])
    out = io.StringIO()
    Lines(out).deliver([EXAMPLE.model_copy(update={"summary": "a\x1b[31m\nb"})])
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, RefusedError), (404, RefusedError), (302, RefusedError), (429, NotNowError), (503, NotNowError)],
)
def test_what_a_place_answers(status: int, error: type[Exception]) -> None:
    with Receiver(lambda _: status) as receiver, pytest.raises(error, match=str(status)):
        post(receiver.url, b"{}", {"Content-Type": "application/json"})
    with pytest.raises(NotNowError):
        post(receiver.url, b"{}", {})  # nobody listens there any more


def test_a_webhook_has_a_key_and_a_token_and_a_template_is_tried_at_the_start(tmp_path: Path) -> None:
    with Receiver() as receiver:
        Webhook(receiver.url, bearer="t0ken").deliver([EXAMPLE])
        assert receiver.headers[0]["Authorization"] == "Bearer t0ken"
        assert receiver.headers[0]["Idempotency-Key"] == EXAMPLE.id
        assert receiver.bodies[0]["summary"] == EXAMPLE.summary
    for text, said in (
        ("{{ nothing_of_this_name }}", "undefined"),
        ("{% if %}", "Expected"),
        ("{{ 1 | nosuch }}", "filter"),
    ):
        (tmp_path / "t.j2").write_text(text)
        with pytest.raises(SettingsError, match=said):
            Webhook("http://x", str(tmp_path / "t.j2"))


def test_what_becomes_worse_or_ends_leaves_no_label_behind() -> None:
    with Receiver() as receiver:
        sink = Alertmanager(receiver.url, now=lambda: 1_790_000_000.7)
        sink.deliver([EXAMPLE])
        sink.deliver([EXAMPLE.model_copy(update={"event": Happened.UPDATED, "severity": Severity.CRITICAL})])
        sink.deliver([EXAMPLE.model_copy(update={"event": Happened.RESOLVED, "severity": Severity.CRITICAL})])
    opened, worse, over = receiver.bodies
    now = "2026-09-21T14:13:20Z"
    assert [(one["labels"]["severity"], one["endsAt"] > now) for one in opened] == [("minor", True)]
    assert {one["labels"]["severity"]: one["endsAt"] > now for one in worse} == {
        "critical": True, "major": False, "minor": False,
    }  # fmt: skip
    assert {one["endsAt"] for one in over} == {now}
    assert len(over) == 3
    assert {one["startsAt"] for one in (*opened, *worse, *over)} == {EXAMPLE.opened}
