"""mlbench: which method makes a language model safe in every language, and at what price?"""

__version__ = "0.1.0"
