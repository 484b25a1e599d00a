"""Our side of every provider: the protocol, the registry, then one provider a module."""
