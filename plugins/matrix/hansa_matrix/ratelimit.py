"""How often an address, or the networks around it, may do something."""

from __future__ import annotations

from hansa import TokenBuckets
from hansa.model.addresses import networks


class RateLimiter(TokenBuckets):
    """A bucket for each name, and for each network of an address."""

    def take_from(self, address: str) -> float:
        """Take one token of an address: of its /24, or with IPv6 of its /64, half a one of its /48 and a
        quarter of its /32. Takes nothing where one of them has too few.
        """
        counts = [(network, 1.0 / (1 << wider)) for wider, network in enumerate(networks(address))]
        for network, count in counts:
            if wait := self.wait(network, count):
                return wait
        for network, count in counts:
            self.take(network, count)
        return 0.0
