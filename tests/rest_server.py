"""The fake servers' doors by their older name; they live in `fake_server/`."""

from fake_server.faults import Fault
from fake_server.serving import Server, serving

__all__ = ["Fault", "Server", "serving"]
