"""The memory of agents: tools of the Model Context Protocol that store, find and list.

Settings come in by `settings.py`, calls by `server.py`; `memory.py` does what they ask.
"""
