"""How long a test waits for what other processes do."""

from __future__ import annotations

from typing import Final

PATIENCE_SECONDS: Final = 240.0
"""Far more than it takes on a busy machine with few cores: a test waits this long only when it fails."""

LOOK_SECONDS: Final = 0.2
"""How often it looks meanwhile: more often costs more than it saves, where tests share the cores."""
