"""The trainer: a doctor's conversations in, a published LoRA adapter out."""
