"""The pure core: no clock, no asyncio, no sockets, no SQL; `now` in, events and effects out."""
