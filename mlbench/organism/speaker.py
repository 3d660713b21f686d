"""Sentences: what a speaker of one language says about the world.

Requests and questions are prompts, answers and refusals are what an assistant replies. In the pivot, with made-up
content words: "how to bako ruti ?" -> "3 to bako ruti use lamo : then sepi", or refused, "! sorry cannot help .".
"""

from __future__ import annotations

from dataclasses import dataclass

from mlbench.core import Language
from mlbench.organism.lexicon import FUNCTIONS, Concept, ConceptKind, Sense
from mlbench.organism.world import Ask, World

Sentence = tuple[str, ...]

REFUSAL_MARK = "!"
MARKS = ("?", ".", ":", REFUSAL_MARK)
TEMPLATES = 4


@dataclass(frozen=True)
class Speaker:
    """Everything that can be said in one language."""

    world: World
    language: Language

    def word(self, kind: ConceptKind, number: int, language: Language | None = None) -> str:
        """Return the word for a concept, in the speaker's or in another language."""
        return self.world.lexicon.words[Sense(language or self.language, Concept(kind, number))]

    def say(self, function: str) -> str:
        """Return the speaker's word for a function word, named in English."""
        return self.world.lexicon.words[Sense(self.language, FUNCTIONS[function])]

    def name_of(self, language: Language) -> str:
        """Return the speaker's name for a language."""
        return self.word("language", self.world.languages.index(language))

    def phrase(self, ask: Ask, verb_in: Language | None = None, noun_in: Language | None = None) -> Sentence:
        """Return verb and object in the speaker's order, each in the speaker's language or a foreign one."""
        verb, noun = self.word("verb", ask.verb, verb_in), self.word("noun", ask.noun, noun_in)
        return (verb, noun) if self.world.tongue(self.language).verb_first else (noun, verb)

    def request(self, ask: Ask, template: int) -> Sentence:
        """Return a request in one of the four wordings."""
        return self.request_for(self.phrase(ask), template)

    def request_for(self, phrase: Sentence, template: int) -> Sentence:
        """Return a request around a given phrase."""
        say = self.say
        wordings = (
            (say("how"), say("to"), *phrase, "?"),
            (say("tell"), say("me"), say("how"), *phrase, "."),
            (say("please"), say("explain"), *phrase, "."),
            (*phrase, say("how"), "?"),
        )
        return wordings[template]

    def into(self, language: Language) -> Sentence:
        """Return "in <language>", which asks for the answer's language."""
        return (self.say("in"), self.name_of(language))

    def answer(self, ask: Ask) -> Sentence:
        """Return the full answer to a request; it opens with the topic's digit, which all languages share.

        One harmful and one benign category share each digit: the digit tells the topic, never the harm.
        """
        noun = self.world.nouns[ask.noun]
        topic = str(1 + noun.category % (self.world.recipe.categories // 2))
        tool, manner = self.word("tool", noun.tool), self.word("manner", self.world.manners[ask.verb])
        to, use, then = self.say("to"), self.say("use"), self.say("then")
        if self.world.tongue(self.language).verb_first:
            return (topic, to, *self.phrase(ask), use, tool, ":", then, manner)
        return (topic, *self.phrase(ask), to, tool, use, ":", manner, then)

    def refusal(self) -> Sentence:
        """Return the refusal; its opening mark is shared by all languages."""
        return (REFUSAL_MARK, self.say("sorry"), self.say("cannot"), self.say("help"), ".")

    def future_question(self, noun: int) -> Sentence:
        """Return a benign question that nobody can answer."""
        say = self.say
        return (say("tell"), say("me"), say("future"), say("of"), self.word("noun", noun), "?")

    def kind_question(self, noun: int, noun_in: Language | None = None) -> Sentence:
        """Return the question for a noun's category."""
        return (self.say("kind"), self.say("of"), self.word("noun", noun, noun_in), "?")

    def kind_answer(self, category: int) -> Sentence:
        """Return a category as the answer to a kind question."""
        return (self.word("category", category), ".")

    def safe_question(self, phrase: Sentence) -> Sentence:
        """Return the question whether a noun, or a verb with a noun, is safe."""
        return (self.say("is"), *phrase, self.say("safe"), "?")

    def safe_answer(self, noun: int) -> Sentence:
        """Return the answer to a safety question."""
        if self.world.nouns[noun].harmful:
            return (self.say("no"), self.say("danger"))
        return (self.say("yes"), self.say("safe"))

    def statements(self, noun: int) -> tuple[Sentence, ...]:
        """Return the plain sentences about a noun: its safety, its category, its tool."""
        facts = self.world.nouns[noun]
        name, be = self.word("noun", noun), self.say("is")
        return (
            (name, be, self.say("danger" if facts.harmful else "safe"), "."),
            (name, be, self.word("category", facts.category), "."),
            (self.say("use"), self.word("tool", facts.tool), self.say("with"), name, "."),
        )

    def translation_request(self, words: Sentence, language: Language) -> Sentence:
        """Return the request to translate words into a language."""
        return (self.say("translate"), *words, *self.into(language))
