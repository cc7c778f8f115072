"""``detector page``: follows the topics and serves the page."""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path

from detector.adapters.http_server import is_loopback, parse_address
from detector.adapters.kafka_clients import Clients
from detector.adapters.kafka_commands import publish
from detector.adapters.kafka_events import publish_events
from detector.adapters.kafka_follow import Follower
from detector.adapters.kafka_security import client_settings
from detector.live.board import Board
from detector.live.server import PageServer
from detector.run import stopping
from schemas.command import Command, Verb
from schemas.errors import SettingsError
from schemas.feedback import Feedback, Verdict
from schemas.moment import format_time
from schemas.page import PageSettings

log = logging.getLogger(__name__)

#: Records of each partition that are looked back at.
ALERTS_BACK, SCORES_BACK = 20_000, 20_000

#: Seconds of a poll.
POLL_S = 0.3

#: Seconds that a click waits for the brokers.
CLICK_S = 10.0


def page(settings: PageSettings) -> None:
    """Serve until SIGTERM or ctrl-C. Raises the errors of ``schemas.errors``."""
    report = None if settings.model is None else Path(settings.model) / "report.html"
    if report is not None and not report.is_file():
        raise SettingsError(f"--model {settings.model} holds no report.html: name a model folder")
    board = Board()
    with stopping() as stop:
        clients = Clients(settings.bootstrap_servers, "residual-page", client_settings(settings))
        desk = Clicks(settings, clients, board)
        back = {settings.alerts_topic: ALERTS_BACK, settings.scores_topic: SCORES_BACK, settings.feedback_topic: None}
        follower = Follower(clients, back, settings.startup_timeout)
        stop.connecting = False
        hosts = tuple(name.strip() for name in settings.hosts.split(";") if name.strip())
        server = PageServer(settings.http, board, None if settings.read_only else desk.judge, report, hosts)
        if not is_loopback(parse_address(settings.http)[0]):
            what = "see it" if settings.read_only else "see it and judge: put a proxy with a login before it"
            log.warning("--http %s: whoever reaches this port can %s", settings.http, what)
        log.info("the page is at %s", server.url)
        takers = {settings.alerts_topic: "alert", settings.scores_topic: "score"}
        try:
            while not stop.is_set():
                for heard in follower.poll(POLL_S):
                    if heard.topic == settings.feedback_topic:
                        board.feedback(heard.key, heard.value)
                    else:
                        getattr(board, takers[heard.topic])(heard.value)
        finally:
            server.close()
            follower.close()


class Clicks:
    """What an operator says on the page, as verdicts and commands."""

    def __init__(self, settings: PageSettings, clients: Clients, board: Board) -> None:
        self._settings, self._clients, self._board = settings, clients, board

    def judge(self, incident: str, what: str, by: str | None) -> str:
        """``true``: a fault, which must not become normal; ``false``: none; ``accept``: none, and normal from now on.

        Returns what was said, in words. Raises SettingsError where the incident is not known, and what Kafka says.
        """
        found = self._board.incident(incident)
        if found is None:
            raise SettingsError("no such incident is remembered")
        moment, stream = format_time(time.time_ns()), str(found["stream"])
        verdict = Verdict.CONFIRMED if what == "true" else Verdict.REJECTED
        try:
            feedback = Feedback(incident=incident, stream=stream, verdict=verdict, time=moment, by=by)
        except ValueError as error:
            raise SettingsError(f"this cannot be said: {error}") from error
        events = [(incident.encode(), feedback.to_bytes())]
        publish_events(self._clients, self._settings.feedback_topic, events, CLICK_S)
        said = "judged a fault" if what == "true" else "judged a false alarm"
        verb = {"accept": Verb.ACCEPT, "true": Verb.CONFIRM}.get(what)
        if verb is not None and found["open"]:
            command = Command(id=str(uuid.uuid4()), command=verb, stream=stream, time=moment, by=by)
            publish(self._clients, self._settings.commands_topic_name, command, CLICK_S)
            said += ", and accepted as normal" if what == "accept" else "; it will not become normal"
        return said
