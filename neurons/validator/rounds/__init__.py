"""Rounds: every miner of a twin is asked the same questions, scored, ranked, and given its weight (docs/rounds.md).

python -m neurons.validator.rounds run       --order=round.json     asks and scores; goes on where it was
python -m neurons.validator.rounds weights   --order=round.json     sets the weights, and waits until they are revealed
python -m neurons.validator.rounds recompute --order=round.json     reckons the same digest from the stored answers
"""
