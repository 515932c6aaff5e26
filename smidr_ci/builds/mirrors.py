"""The operator's mirrors for all builds, the Yocto Project's public one among them."""

from __future__ import annotations

import re
from typing import Final

from smidr_ci.bitbake.conf import Mirrors
from smidr_ci.config.caches import CacheLimits
from smidr_ci.trust import Trust

__all__ = ["YOCTO_HASH_SERVER", "YOCTO_SSTATE", "mirrors_of"]

# OE-Core: meta/conf/fragments/yocto/sstate-mirror-cdn.conf. Both belong together.
YOCTO_SSTATE: Final = "file://.* http://sstate.yoctoproject.org/all/PATH;downloadfilename=PATH"
YOCTO_HASH_SERVER: Final = "wss://hashserv.yoctoproject.org/ws"
_LOGIN: Final = re.compile(r"://[^/\s]*@|[?&;](?:pswd|token|password|user)=", re.IGNORECASE)


def mirrors_of(cache: CacheLimits, trust: Trust = Trust.TRUSTED) -> Mirrors:
    """What is asked after a project's own mirrors; a stranger sees no URL with a login."""
    public = (YOCTO_SSTATE,) if cache.yocto_mirror else ()
    sstate, sources = (*cache.sstate_mirrors, *public), cache.premirrors
    if trust is Trust.UNTRUSTED:
        sstate, sources = (
            tuple(line for line in lines if not _LOGIN.search(line)) for lines in (sstate, sources)
        )
    return Mirrors(sstate, sources)
