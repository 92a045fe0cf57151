"""What to do where the server of the counters does not do what it must, by the word that the counters give."""

from __future__ import annotations

import os

from fanout_guard.core.redis_url import masked_redis_url
from fanout_guard.settings import PREFIX

ADVICE = {
    "connection": "nothing answers there, or it takes no more clients (maxclients); is the server running, and is this"
    " its address (with rediss:// also: is its certificate trusted for that name; with redis+sentinel:// also: is that"
    " the service's name)?",
    "timeout": "no answer in time; is this the server's address, does a firewall drop packets, and does it speak TLS"
    " (rediss://) where the address says so, and only there?",
    "loading": "the server is still loading its data; try again later",
    "busy": "a script has kept the server busy for too long",
    "auth": "the server refuses the user or the password",
    "noperm": "the ACL user lacks a permission; it needs the commands of @read, @write and @scripting, TIME, on a"
    " cluster CLUSTER SLOTS and ASKING, where the address names a database SELECT, or a client_name CLIENT SETNAME, and"
    " the keys KEY_PREFIX:*",
    "readonly": "the server does not accept writes: a replica, one that lacks replicas, or one whose disk fails",
    "oom": "the server has no memory left",
    "cluster": "not every slot is served, or the address is of the wrong kind: redis+cluster:// is for clusters, and"
    " only for them",
    "script": "the server answers with an error; does it have the database in the address, and may scripts run?",
    "noscript": "the server forgets scripts at once",
    "version": "the server is too old; Redis 6.2, Valkey 7.2 or newer is needed",
    "wrongtype": "something else has written to one of the guard's keys; find who shares the prefix, then reset the"
    " tenant, or choose another KEY_PREFIX",
    "other": "what answers there does not behave like Redis; is this the server's address and port?",
}


def not_shown(tenant: str, reason: str) -> str:
    """One line: that a tenant's counters alone cannot be read, and why."""
    return f"tenant {tenant!a} is not shown: {reason}: {ADVICE[reason]}"


def out_of_reach(reason: str) -> str:
    """One line: where the counters are, that they are out of reach, why, and what that means."""
    place = masked_redis_url(os.environ.get(f"{PREFIX}REDIS_URL", "").strip())
    what = "read" if reason == "wrongtype" else "reached"  # the server is there
    return f"the counters at {place} cannot be {what}: {reason}: {ADVICE[reason]}"
