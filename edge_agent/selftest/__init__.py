"""What a self-test measures: thin probes, each with a time of its own and none that hangs the others. The judging is in
`edge_agent.core.checks`, `chirp` and `line_checks`."""
