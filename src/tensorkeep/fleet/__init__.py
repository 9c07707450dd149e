"""The same verbs over many checkpoints at once.

A room above the verbs: it spreads their work and knows nothing of what they find. `pool` uses
several processes of this machine; callers are the command and whoever scans folders from Python.
"""

from tensorkeep.fleet.pool import cores, processes

__all__ = ["cores", "processes"]
