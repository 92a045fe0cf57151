"""Real servers that can be killed, stopped, replaced and moved; on loopback and free ports, gone with the test."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from tests.counters.servers import binary_of
from tests.ports import free_port
from tests.waiting import until

SLOTS = 16384


class Node:
    """One server process that keeps its port over its restarts, and nothing else."""

    def __init__(self, *options: str, kind: str = "valkey", command: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="fg-"))
        binary = binary_of(kind)
        assert binary is not None
        own = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        if not command:
            own += ["--save", "", "--repl-diskless-sync-delay", "0"]
        self._command = [binary, *command, *own, *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> Node:
        """Start, empty, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: listening(self.port))
        return self

    def kill(self) -> None:
        """As the kernel's out-of-memory killer does it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It stays there and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on with what it has received meanwhile."""
        self._signal(signal.SIGCONT)

    def ask(self, *arguments: str | bytes | int, **options: Any) -> Any:
        """One command, by hand."""
        with redis.Redis(port=self.port, socket_timeout=10, **options) as client:
            return client.execute_command(*arguments)

    def close(self) -> None:
        """Gone, with all that it wrote."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def running(*options: str, kind: str = "valkey") -> Iterator[Node]:
    """One server."""
    node = Node(*options, kind=kind)
    try:
        yield node.start()
    finally:
        node.close()


class Watched:
    """A master, its replica, and a Sentinel that promotes the replica."""

    SERVICE = "counters"

    def __init__(self, master: Node, replica: Node, sentinel: Node) -> None:
        self.master = master
        self.replica = replica
        self.sentinel = sentinel
        self.url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{self.SERVICE}"

    def fail_over(self) -> None:
        """The master dies; returns when its replica is the master."""
        self.master.kill()
        self.sentinel.ask("SENTINEL", "SET", self.SERVICE, "down-after-milliseconds", 400)
        until(lambda: self.replica.ask("ROLE")[0] == b"master")

    def hand_over(self) -> None:
        """A planned fail-over; returns when the old master is the replica, and still there."""
        until(self._demoted)

    def _demoted(self) -> bool:
        port = int(self.sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.SERVICE)[1])
        if port == self.master.port:  # also again: Sentinel gives up where it stood still meanwhile
            with suppress(redis.ResponseError):  # it is at it, or does not know the replica well enough yet
                self.sentinel.ask("SENTINEL", "FAILOVER", self.SERVICE)
        try:
            return bool(self.master.ask("ROLE")[0] == b"slave")
        except redis.ConnectionError:  # it drops its clients when it is demoted
            return False


@contextmanager
def watched(password: str = "") -> Iterator[Watched]:
    """A Sentinel with what it watches; all three with a password where one is given."""
    options = ("--requirepass", password, "--masterauth", password) if password else ()
    with ExitStack() as stack:
        master = stack.enter_context(running(*options))
        replica = stack.enter_context(running(*options, "--replicaof", f"127.0.0.1 {master.port}"))
        login = {"password": password} if password else {}
        until(lambda: replica.ask("INFO", "replication", **login)["master_link_status"] == "up")
        config = master.folder / "sentinel.conf"
        config.write_text(
            f"sentinel monitor {Watched.SERVICE} 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds {Watched.SERVICE} 60000\n"  # it must not take a freeze for a death
            f"sentinel failover-timeout {Watched.SERVICE} 2000\n"
            + (f"sentinel auth-pass {Watched.SERVICE} {password}\nrequirepass {password}\n" if password else "")
        )
        sentinel = Node(command=(str(config), "--sentinel"))
        stack.callback(sentinel.close)
        sentinel.start()
        # Where it stood still for 2 s, it would do nothing for the next 30.
        sentinel.ask("SENTINEL", "DEBUG", "TILT-TRIGGER", 60_000, **login)
        until(lambda: _knows_replica(sentinel, password))
        yield Watched(master, replica, sentinel)


class ClusterOfThree:
    """Three masters, each with a third of the slots, and a replica for each where asked for."""

    def __init__(self, masters: list[Node], replicas: list[Node]) -> None:
        self.masters = masters
        self.replicas = replicas
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in masters)

    def owner(self, slot: int) -> Node:
        """The master that has a slot now, once all living ones agree: an old message may mislead one for a while."""
        ports: set[int] = set()

        def agreed() -> bool:
            ports.clear()
            ports.update(self._owners(slot))
            return len(ports) == 1

        until(agreed, lambda: f"slot {slot} belongs to each of {ports}")
        return next(node for node in (*self.masters, *self.replicas) if node.port in ports)

    def begin_move(self, slot: int, target: Node | None = None) -> tuple[Node, Node]:
        """A slot is on the move and its keys are not yet; the node it leaves, and the one it goes to."""
        source = self.owner(slot)
        target = target or self.masters[(self.masters.index(source) + 1) % 3]
        ids = {node: node.ask("CLUSTER", "MYID").decode() for node in (source, target)}
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        return source, target

    def move(self, slot: int, target: Node, *, pause_s: float = 0.0) -> None:
        """Move a slot with its keys, as ``redis-cli --cluster reshard`` does it."""
        source, _ = self.begin_move(slot, target)
        time.sleep(pause_s)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        owner = target.ask("CLUSTER", "MYID").decode()
        for node in (target, source, *self.masters):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def fail_over(self, slot: int) -> None:
        """The master of a slot dies; returns when its replica has the slot."""
        master = self.owner(slot)
        master.kill()
        until(lambda: self.owner(slot) is not master and _cluster_ok(self._alive()))

    def take_over(self, lost: Sequence[Node]) -> None:
        """Some masters die, and their replicas become masters without an election."""
        replicas = [self.replicas[self.masters.index(node)] for node in lost]
        for node in lost:
            node.kill()
        for replica in replicas:
            replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        until(lambda: all(_cluster_ok(node) for node in (self._alive(), *replicas)))

    def until_whole(self) -> None:
        """Wait until every master finds all slots served."""
        until(lambda: all(_cluster_ok(node) for node in self.masters))

    def _owners(self, slot: int) -> set[int]:
        return {
            port
            for node in self.masters
            if listening(node.port)
            for first, last, (_, port, *_), *_ in _raw_slots(node)
            if first <= slot <= last
        }

    def _alive(self) -> Node:
        return next(node for node in self.masters if listening(node.port))


@contextmanager
def cluster(*, replicas: bool = False) -> Iterator[ClusterOfThree]:
    """A cluster."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "600", "--cluster-replica-validity-factor", "0")
    with ExitStack() as stack:
        nodes = [stack.enter_context(running(*options)) for _ in range(6 if replicas else 3)]
        masters = nodes[:3]
        third = SLOTS // 3 + 1
        for index, node in enumerate(masters):
            node.ask("CLUSTER", "ADDSLOTSRANGE", index * third, min((index + 1) * third, SLOTS) - 1)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for node in nodes[1:]:
            node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        until(lambda: all(_known(node) == len(nodes) for node in nodes))
        for master, node in zip(masters, nodes[3:], strict=False):
            myid = master.ask("CLUSTER", "MYID").decode()
            until(lambda node=node, myid=myid: _replicates(node, myid))  # type: ignore[misc]
        until(lambda: all(_cluster_ok(node) for node in nodes))
        for node in nodes[3:]:
            until(lambda node=node: b"master_link_status:up" in _raw(node, "INFO", "replication"))  # type: ignore[misc]
        yield ClusterOfThree(masters, nodes[3:])


def listening(port: int) -> bool:
    """Whether a server answers there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5) as client:
            client.settimeout(0.5)
            client.sendall(b"PING\r\n")
            # Also a server that asks for a password is there.
            return client.recv(16)[:5] in (b"+PONG", b"-NOAU", b"-DENI")
    except OSError:
        return False


def listening_http(port: int) -> bool:
    """Whether an HTTP server answers there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as client:
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            return client.recv(16).startswith(b"HTTP/1.")
    except OSError:
        return False


def _raw(node: Node, *arguments: str | int) -> bytes:
    """A reply as it came."""
    with socket.create_connection(("127.0.0.1", node.port), 5) as client, client.makefile("rb") as file:
        client.sendall(" ".join(map(str, arguments)).encode() + b"\r\n")
        size = int(file.readline()[1:])
        return file.read(size)


def _raw_slots(node: Node) -> Any:
    with redis.Redis(port=node.port, socket_timeout=10) as client:
        client.response_callbacks.clear()
        return client.execute_command("CLUSTER", "SLOTS")


def _known(node: Node) -> int:
    lines = _raw(node, "CLUSTER", "NODES").decode().splitlines()
    return sum("handshake" not in line for line in lines)


def _cluster_ok(node: Node) -> bool:
    return b"cluster_state:ok" in _raw(node, "CLUSTER", "INFO")


def _replicates(node: Node, master_id: str) -> bool:
    try:
        node.ask("CLUSTER", "REPLICATE", master_id)
    except redis.RedisError:
        return False
    return True


def _knows_replica(sentinel: Node, password: str) -> bool:
    with redis.Redis(port=sentinel.port, password=password or None, socket_timeout=10) as client:
        client.response_callbacks.clear()
        return bool(client.execute_command("SENTINEL", "REPLICAS", Watched.SERVICE))
