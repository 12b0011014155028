"""How a call reaches its endpoint and comes back: keys, connections, time, retries, faults."""
