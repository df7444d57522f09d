"""FineTuneRun: one trainer Job, what it reports, and what becomes of the version that comes out of it."""
