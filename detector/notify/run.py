"""``detector notify``: from the alerts topic to people.

One round: poll, decide, remember (with the offsets, in one transaction), deliver, remember what was delivered. A
process that dies before it has remembered decides again; one that dies while it delivers tells the same again, under
the same id: Alertmanager takes that for one, a webhook has `Idempotency-Key`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from detector.adapters.health import Health, HealthServer
from detector.adapters.http_post import NotNowError, RefusedError
from detector.adapters.kafka_clients import Clients
from detector.adapters.kafka_inbox import Inbox, Item, Letter, Names, open_inbox
from detector.adapters.kafka_security import client_settings
from detector.notify.courier import Courier
from detector.notify.desk import Desk, Rules
from detector.notify.heard import Heard
from detector.notify.ledger import Parcel
from detector.notify.metrics import NotifyMetrics
from detector.notify.mutes import Mutes
from detector.notify.sinks import AGAIN_S, Alertmanager, Lines, Sink, Webhook
from detector.run import stopping
from detector.watchdog import Watchdog
from schemas.errors import SettingsError
from schemas.notify import NotifySettings

log = logging.getLogger(__name__)

#: Seconds without progress after which the process ends, to be started again.
LIMIT_S = 120.0

#: Seconds of a poll: nothing is told later than this after it is due.
POLL_S = 0.5

#: Seconds between two looks at silences, and at how much is left to read.
LOOK_S = 5.0


def notify(settings: NotifySettings) -> None:
    """Tell until SIGTERM, ctrl-C or, with ``stop_at_end``, all is told. Raises the errors of ``schemas.errors``."""
    sinks = sinks_of(settings)
    mutes = Mutes(settings.calendars)
    health, metrics = Health(LIMIT_S), NotifyMetrics()
    server = HealthServer(settings.http, metrics.registry, health) if settings.http else None
    names = Names(
        settings.alerts_topic, settings.state_topic_name, settings.dead_letters_topic, settings.silences_topic,
        settings.group_id,
    )  # fmt: skip
    try:
        with stopping() as stop, Watchdog(max(LIMIT_S, settings.startup_timeout + 30)) as watchdog:
            clients = Clients(settings.bootstrap_servers, "residual-notify", client_settings(settings))
            inbox = open_inbox(clients, names, settings.startup_timeout)
            stop.connecting = False
            try:
                office = Office(settings, sinks, mutes, inbox, metrics)
                health.ready(True, f"telling {', '.join(sink.name for sink in sinks)}")
                while not stop.is_set() and not (office.round() and settings.stop_at_end):
                    health.beat()
                    watchdog.beat()
            finally:
                inbox.close()
    finally:
        if server is not None:
            server.close()


def sinks_of(settings: NotifySettings) -> list[Sink]:
    """The places that are told. Raises SettingsError where one cannot be."""
    sinks: list[Sink] = []
    try:
        url, bearer = settings.webhook_url, settings.bearer
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if settings.alertmanager is not None:
        sinks.append(Alertmanager(settings.alertmanager))
    if url is not None:
        sinks.append(Webhook(url, settings.webhook_template, settings.webhook_type, bearer))
    if settings.lines:
        sinks.append(Lines())
    return sinks


class Office:
    """Desk, couriers and inbox. Restores what was remembered."""

    def __init__(
        self, settings: NotifySettings, sinks: Sequence[Sink], mutes: Mutes, inbox: Inbox, metrics: NotifyMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._inbox, self._mutes, self._metrics, self._clock = inbox, mutes, metrics, clock
        rules = Rules(
            tuple(sink.name for sink in sinks), settings.wait, settings.budget, settings.day_start_s,
            settings.fleet_streams, settings.fleet_window, settings.page_url,
        )  # fmt: skip
        self.desk = Desk(rules, mutes.hold)
        self.desk.restore(inbox.restore(settings.startup_timeout))
        self._forget(rules.places)
        self._letters: list[Letter] = []
        self._couriers = [Courier(sink, settings.rate, settings.give_up, self._set_aside) for sink in sinks]
        self._standing = next((sink for sink in sinks if isinstance(sink, Alertmanager)), None)
        self._looked = self._said = 0.0
        self._mutes.tell(inbox.silences())  # before the first alert
        self._lag = 1
        log.info("%d incidents open, %d notices on their way", len(self.desk.cases), len(self.desk.parcels))

    def _forget(self, places: Sequence[str]) -> None:
        """Places that are no longer told."""
        for number, parcel in list(self.desk.parcels.items()):
            for place in [place for place in parcel.left if place not in places]:
                self.desk.delivered(number, place)

    def round(self) -> bool:
        """One round; True where nothing is left to do but wait for alerts."""
        items = self._inbox.poll(0.0 if any(map(self.desk.pending, self.desk.rules.places)) else POLL_S)
        now = self._clock()
        for item in items:
            self._take(item, now)
        if items or now - self._looked >= LOOK_S:
            self._look(now)
        self.desk.tick(now, caught_up=self._lag == 0)
        self._remember()
        brought = [courier.carry(self.desk, now) for courier in self._couriers]
        self._remember()
        self._stand(now)
        self._metrics.show(self.desk, self._lag, self._couriers, now)
        waiting = any(case.due > now for case in self.desk.cases.values() if case.stage == "waiting")
        if not any(brought) and self.desk.parcels and not items:
            time.sleep(0.05)  # a place is not now, or has had enough for this minute
        return not (items or self._lag or self.desk.parcels or waiting)

    def _take(self, item: Item, now: float) -> None:
        try:
            self.desk.take(Heard.of(item.value), now)
        except ValueError as error:
            log.warning("offset %d of partition %d is no alert event: %s", item.offset, item.partition, error)
            headers = [("residual-reason", b"not-an-alert"), ("residual-detail", str(error).encode())]
            headers += [("residual-partition", b"%d" % item.partition), ("residual-offset", b"%d" % item.offset)]
            self._letters.append(Letter(item.key, item.value, headers))

    def _look(self, now: float) -> None:
        self._lag = self._inbox.lag()
        if now - self._looked >= LOOK_S:
            self._mutes.tell(self._inbox.silences())
            self._looked = now

    def _set_aside(self, parcel: Parcel, reason: str, why: str) -> None:
        headers = [("residual-reason", reason.encode()), ("residual-detail", why.encode())]
        self._letters.append(Letter(parcel.notice.subject.encode(), parcel.notice.to_bytes(), headers))

    def _remember(self) -> None:
        self._inbox.commit(self.desk.changes(), self._letters)
        self._metrics.dead_letters.inc(len(self._letters))
        self._letters.clear()

    def _stand(self, now: float) -> None:
        """Tell Alertmanager again what is open: it forgets when it is started anew."""
        if self._standing is None or now - self._said < AGAIN_S or self.desk.pending(self._standing.name):
            return
        self._said = now
        told = self.desk.told
        try:
            for at in range(0, len(told), self._standing.batch):
                self._standing.deliver(told[at : at + self._standing.batch])
        except (RefusedError, NotNowError) as error:
            log.warning("alertmanager was not told again what is open: %s", error)
