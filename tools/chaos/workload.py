"""Clients of a cluster under test, and what they write down.

    w = Workload(cluster, Options(kind="mixed", clients=8, seed=7), history)
    w.prepare()            # SKUs, sales, stock: recorded too
    w.start()              # threads run until stop()
    … faults …
    w.stop()               # no new calls; those in doubt go on being asked again
    left = w.settle(60)    # after the heal: until every call has its answer; how many have none
    w.collect(directory)   # final.json: what the cluster and PostgreSQL hold in the end, for the checkers

cluster: needs .stage.ports {"public", "admin"}, .stage.keys, .stage.signature(event, body), .ctl(…), .nodes;
ports are read anew at each connection, so that a gateway may be replaced.
"""
import dataclasses

KINDS = ("orders-hot",     # one SKU, one unit an order
         "orders-many",    # many SKUs, 1-16 lines, repeated SKUs
         "payments",       # orders that are paid, cancelled, refunded, paid late or not at all
         "eligibilities",  # rights granted and revoked, orders that need them
         "leases",         # acquire, renew, release, with fencing tokens
         "reads",          # strong, and local with min_index, beside a few orders
         "adjustments",    # stock comes and goes while it sells
         "mixed")          # all of them at once


@dataclasses.dataclass
class Options:
    kind: str = "mixed"
    clients: int = 8               # threads
    rate: float = 0                # calls/s over all clients; 0: closed loop, each waits for its answer
    pause_s: float = 0.0           # closed loop: between two calls of a client
    seed: int = 1
    skus: int = 8
    units: int = 1_000_000         # of each SKU at the start; small: sold out within the run
    users: int = 64
    payment_timeout_ms: int = 2000 # short, so that orders expire within a run
    attempt_s: float = 6.0         # of one HTTP attempt
    give_up_s: float = 0           # of one call; 0: never while the workload runs
    repeat_share: float = 0.02     # of settled writes: asked once more under the same key


class Workload:
    def __init__(self, cluster, options, history):
        raise NotImplementedError

    def prepare(self):
        """Makes what is sold. Before the faults: raises when it cannot."""

    def start(self):
        """Starts the clients; returns at once."""

    def stop(self):
        """No new calls. Returns at once; calls in doubt are still asked again."""

    def settle(self, timeout_s):
        """Waits until every call has returned; what has not by then returns `unknown`. Returns their number."""

    def counts(self):
        """{"calls", "ok", "refused", "open", "retries"}: for progress."""

    def collect(self, directory, postgres_url=None):
        """Writes directory/final.json; see check/final.py for its form. The cluster must be healed."""
