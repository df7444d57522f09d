"""The validator: what a subnet's validator runs, above miners and the wire between them."""
