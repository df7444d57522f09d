"""Builds this project's container images from `images/`, with Docker where it runs, else with buildah."""

from imagebuilder.builder import Built, build
from imagebuilder.catalog import Catalog
from imagebuilder.errors import BuildError
from imagebuilder.model import build_model

__all__ = ["BuildError", "Built", "Catalog", "build", "build_model"]
