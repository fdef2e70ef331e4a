"""A real Docker Engine, through the docker SDK."""

from .client import DockerEngine, open_engine

__all__ = ["DockerEngine", "open_engine"]
