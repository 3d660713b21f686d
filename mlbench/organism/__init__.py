"""The model organism: a tiny multilingual language model in which the safety gap between languages is really there."""
