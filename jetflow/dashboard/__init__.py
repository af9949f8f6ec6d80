"""The dashboard: pages, REST and live events over what `jetflow.Client` answers. Needs the extra ``ui``."""

from jetflow.dashboard.access import ACTIONS, Access, Action
from jetflow.dashboard.app import Dashboard
from jetflow.dashboard.audit import Acted
from jetflow.dashboard.login import TokenLogin
from jetflow.dashboard.mounting import mounted

__all__ = ["ACTIONS", "Access", "Acted", "Action", "Dashboard", "TokenLogin", "mounted"]
