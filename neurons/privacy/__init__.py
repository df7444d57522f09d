"""De-identification: finds what HIPAA's Safe Harbor says must not be left in a text, with patterns alone."""

from neurons.privacy.identifiers import Finding, Identifier, find_identifiers

__all__ = ["Finding", "Identifier", "find_identifiers"]
