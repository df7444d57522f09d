"""The gateway's pages: a patient asks and rates, a doctor corrects, an operator looks at the miners (docs/pages.md)."""

from neurons.validator.pages.gateway import Gateway
from neurons.validator.pages.opening import open_pages
from neurons.validator.pages.site import Pages

__all__ = ["Gateway", "Pages", "open_pages"]
