"""FineTuneRun: a trainer's Job, then an examiner's, what they report, and what becomes of the new version."""
