"""Flows over links in virtual time: what the bandwidth estimator does, by RFC 8867's cases and by traces."""
