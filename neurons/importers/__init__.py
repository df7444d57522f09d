"""Datasets as others write them, made into the lines that the trainer reads (docs/datasets.md)."""

from neurons.importers.importing import Import, import_lines
from neurons.importers.shapes import SHAPES, Refused, Shape

__all__ = ["SHAPES", "Import", "Refused", "Shape", "import_lines"]
