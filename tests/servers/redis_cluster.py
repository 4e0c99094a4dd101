"""A Redis cluster, under the name by which parity programs ask for servers."""

from tests.servers.redis import redis_cluster

__all__ = ["redis_cluster"]
