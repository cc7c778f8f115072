"""How a connection to a broker is made, where kafka-python 3.0.12 does less than is needed.

* A TLS handshake has no time-out there: whoever accepts a connection and says nothing would be waited for, for ever.
* What comes together with the end of a connection is dropped there: so is the reason for which a login is refused.
* Whatever refuses a connection is tried again there until the time-out, and then nobody has answered.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any

from kafka import errors as vendor
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket, create_connection
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from detector.adapters.kafka_refusals import Refusals


def _closing(connect: Callable[..., Any]) -> Callable[..., Any]:
    """kafka-python leaves the socket of a connection that failed to the garbage collector, one for each attempt."""

    async def sock_connect(self: Any, net: Any, sock: Any, sockaddr: Any, timeout_at: float | None = None) -> Any:
        try:
            return await connect(self, net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise

    return sock_connect


KafkaNetSocket.sock_connect = _closing(KafkaNetSocket.sock_connect)

# Seconds that a TLS handshake may take: it is two exchanges and some computing. A frozen broker takes no longer than
# this before another one is tried.
HANDSHAKE_S = 10.0


class Client(KafkaNetClient):  # type: ignore[misc]
    """The client's network part, with transports of ours."""

    def __init__(self, **configs: Any) -> None:
        super().__init__(**configs)
        self._manager._build_transport = self._build_transport

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> KafkaTCPTransport:
        """As the manager's own. Raises KafkaConnectionError, whose cause says why."""
        config, net = self._manager.config, self._net
        socket = await create_connection(
            net, node.host, node.port, config["socket_options"], proxy_url=config["proxy_url"], timeout_at=timeout_at
        )
        if not self._manager.ssl_enabled:
            return _Plain(net, socket, host=node.host)
        files = {name: value for name, value in config.items() if name.startswith("ssl_")}
        try:
            transport = _Tls(net, socket, host=node.host, **files)
        except Exception:
            socket.close()
            raise
        deadline = time.monotonic() + HANDSHAKE_S
        try:
            await transport.shake_hands(deadline if timeout_at is None else min(deadline, timeout_at))
        except Exception as error:
            transport.abort()
            raise vendor.KafkaConnectionError(f"TLS handshake: {error}") from error
        return transport


class Strict(Client):
    """Gives up where a connection is refused for good, see ``Refusals``: for use until a cluster was reached once."""

    def __init__(self, **configs: Any) -> None:
        super().__init__(**configs)
        manager = self._manager
        connect, refusals = manager.get_connection, Refusals(configs)
        refused: list[Exception] = []

        def get_connection(node_id: Any, *args: Any, **kwargs: Any) -> Any:
            if refused:
                raise refused[0]
            node, connection = manager.cluster.broker_metadata(node_id), connect(node_id, *args, **kwargs)

            def note(look: Callable[[Exception, str, int], Exception | None], error: Exception) -> None:
                found = look(error, node.host, node.port)
                if found is not None:
                    refused.append(found)

            def lost(error: Exception) -> None:
                if connection.init_future.succeeded() and not manager.bootstrapped:
                    note(refusals.lost, error)

            if node is not None:
                connection.init_future.add_errback(lambda error: note(refusals.failed, error))
                connection.close_future.add_errback(lost)
            return connection

        manager.get_connection = get_connection


class _Plain(KafkaTCPTransport):  # type: ignore[misc]
    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        data, error = super()._sock_recv()
        return data, None if data else error  # what came is read first; the end is found again


class _Tls(KafkaSSLTransport):  # type: ignore[misc]
    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        data, error = super()._sock_recv()
        return data, None if data else error

    async def shake_hands(self, deadline: float) -> None:
        while True:
            try:
                self._sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, deadline)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, deadline)
