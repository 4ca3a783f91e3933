"""Calls over poor links, measured: `scripts/bench-call`. `call` makes one, `marks` judges it, `report` tells."""
