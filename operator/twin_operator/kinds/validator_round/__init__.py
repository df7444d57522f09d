"""ValidatorRound: the Jobs that ask and score a subnet's miners and set weights, and what they report."""
