"""Updates of an installed kiosk: what is on the disk, what comes from the hub, and the run that joins them.

Runs as root, as the *good* version's code, whatever `current` is; see `edge_agent.core.updating`.
"""
