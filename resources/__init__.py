"""All that touches the outside: storage, git, registry, training processes, endpoints."""
