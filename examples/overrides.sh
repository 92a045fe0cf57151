#!/bin/sh
# An override at run time: every worker sees it within FANOUT_GUARD_OVERRIDES_TTL seconds, none is restarted.
# Needs FANOUT_GUARD_REDIS_URL, the same as the workers have.
set -eu
fanout-guard caps set acme max_sites=500 --for 24h # one tenant, for a day
fanout-guard caps list acme
fanout-guard caps set '*' mode=shadow --for 1h # the kill switch: decide and record, reject nothing
fanout-guard caps unset '*'
fanout-guard caps unset acme
