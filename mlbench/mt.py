"""Translation engines: sequence-to-sequence models of the NLLB kind, chat models that translate, and servers.

All decode greedily, or with beams: translations are data, and have to come out the same again.

References:
    NLLB Team, arXiv 2207.04672: language codes such as swh_Latn; the target's code is forced as the first token.
    Hunyuan-MT (github.com/Tencent-Hunyuan/Hunyuan-MT, commit 09a37af): the two wordings of `question`, and no system
        prompt. Its authors suggest sampling at temperature 0.7; see above.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import Field

from mlbench import languages, sources
from mlbench.core import Checkpoint, Language, Model, Prompt
from mlbench.errors import ConfigError, nearest
from mlbench.shootout import Entry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from mlbench.backends import chat
    from mlbench.models import Loaded

Progress = Callable[[int, int], None]


class EngineEntry(Entry):
    """What translates.

    kind: nllb (sequence-to-sequence), causal (a chat model that is asked to translate), server (one behind an
    OpenAI-compatible endpoint).
    model: folder, or hub id with its commit in `revision`; for a server, the name it knows.
    names: what the engine calls a language, where it is not NLLB's code or the language's name.
    beams: of a sequence-to-sequence model; 1 is greedy.
    batch_size: texts translated side by side, and how many are lost when a run is killed.
    """

    kind: Literal["nllb", "causal", "server"]
    model: Annotated[str, Field(min_length=1)]
    revision: str = ""
    dtype: Literal["float32", "bfloat16"] = "float32"
    url: Annotated[str, Field(pattern=r"^(https?://[^@\s]+)?$")] = ""
    api_key_env: str = ""
    names: dict[Language, str] = Field(default={})
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    beams: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 16


class Said(NamedTuple):
    """A translation.

    Attributes:
        text: "" where the text is longer than the engine can read; it is never cut.
        truncated: Whether the token limit cut the translation off, or left no room for one.
    """

    text: str
    truncated: bool


class Engine(Protocol):
    """Translates texts from one language into another."""

    def about(self) -> dict[str, str | int]:
        """Return everything its translations depend on; nothing is loaded for it."""

    def check(self, wanted: Sequence[Language]) -> None:
        """Refuse languages that it cannot name.

        Raises:
            UserError: Says which.
        """

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Said]:
        """Return one translation per text, in order."""


def engine(entry: EngineEntry) -> Engine:
    """Return the engine of a configuration; its model is loaded when something is translated.

    Raises:
        UserError: The model is unknown, or a server's address is missing.
    """
    if entry.kind == "server":
        if not entry.url:
            raise ConfigError("the engine `server` needs `url`, where its /chat/completions is")
        if entry.api_key_env and not os.environ.get(entry.api_key_env):
            raise ConfigError(f"the environment variable {entry.api_key_env} is not set")
        return Served(entry)
    if entry.url or entry.api_key_env:
        raise ConfigError(f"`url` and `api_key_env` are for the engine `server`, not for {entry.kind!r}")
    model = sources.resolve(entry.model, revision=entry.revision, dtype=entry.dtype)
    return Nllb(entry, model) if entry.kind == "nllb" else Causal(entry, model)


class Nllb:
    """A sequence-to-sequence model whose tokenizer has one token per language."""

    def __init__(self, entry: EngineEntry, model: Model) -> None:
        self.entry = entry
        self.model = model

    def about(self) -> dict[str, str | int]:
        """Return everything the translations depend on."""
        return _about(self.entry, self.model) | {"beams": self.entry.beams}

    def check(self, wanted: Sequence[Language]) -> None:
        """Refuse languages without a code, or whose code the tokenizer does not know.

        Raises:
            ConfigError: Says which.
        """
        for language in wanted:
            self._token(language)

    def code(self, language: Language) -> str:
        """Return the model's code of a language.

        Raises:
            ConfigError: It is not known.
        """
        found = self.entry.names.get(language) or languages.FLORES.get(language)
        if found is None:
            raise ConfigError(
                f"no code of an NLLB model is known for {language!r}",
                hint=f"{nearest(language, languages.FLORES)} or say it: names: {{{language}: xyz_Latn}}".strip(),
            )
        return found

    @cached_property
    def _words(self) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        start = sources.fetch(self.model)
        with _loading(start):
            found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                start.base, revision=start.revision or None, trust_remote_code=False
            )
        return found

    @cached_property
    def _model(self) -> PreTrainedModel:
        import torch
        from transformers import AutoModelForSeq2SeqLM

        from mlbench import models

        start = sources.fetch(self.model)
        models.refuse_pickles(start.base)
        with _loading(start):
            found = AutoModelForSeq2SeqLM.from_pretrained(
                start.base,
                revision=start.revision or None,
                dtype=getattr(torch, start.dtype),
                use_safetensors=True,
                trust_remote_code=False,
            )
        return found.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Said]:
        """Return one translation per text, in order."""
        from mlbench import models

        model, words = self._model, self._words
        forced = self._token(target)
        words.src_lang = self.code(source)
        rows = [list(words(text)["input_ids"]) for text in texts]
        longest = int(getattr(model.config, "max_position_embeddings", 1 << 20))
        found = {at: Said("", True) for at, row in enumerate(rows) if len(row) > longest}
        short = [at for at in range(len(rows)) if at not in found]

        def work(part: list[int]) -> list[Said]:
            return self._generate(model, words, [rows[short[i]] for i in part], forced)

        for batch in models.batches([rows[at] for at in short], self.entry.batch_size, work):
            found.update((short[index], said) for index, said in zip(batch.indices, batch.output, strict=True))
        return [found[at] for at in range(len(rows))]

    def _token(self, language: Language) -> int:
        code = self.code(language)
        token = self._words.convert_tokens_to_ids(code)
        if token is None or token == self._words.unk_token_id:
            raise ConfigError(f"the tokenizer of {self.model.source!r} has no token for the language {code!r}")
        return int(token)

    def _generate(self, model: Any, words: Any, rows: list[list[int]], target: int) -> list[Said]:
        import torch

        batch = words.pad({"input_ids": rows}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model.generate(
                **batch,
                forced_bos_token_id=target,
                max_new_tokens=self.entry.max_new_tokens,
                num_beams=self.entry.beams,
                do_sample=False,
            )
        return [
            Said(words.decode(row, skip_special_tokens=True).strip(), words.eos_token_id not in row[1:])
            for row in output.tolist()
        ]


class Causal:
    """A chat model that is asked to translate in the words of `question`."""

    def __init__(self, entry: EngineEntry, model: Model) -> None:
        self.entry = entry
        self.model = model

    def about(self) -> dict[str, str | int]:
        """Return everything the translations depend on."""
        return _about(self.entry, self.model) | {"wording": question("{text}", "", "{language}")}

    def check(self, wanted: Sequence[Language]) -> None:
        """Refuse languages without a name.

        Raises:
            UserError: Says which.
        """
        check_names(wanted, self.entry.names)

    @cached_property
    def _ready(self) -> Loaded:
        from mlbench import models

        return models.load(sources.fetch(self.model))

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Said]:
        """Return one translation per text, in order."""
        from mlbench import models

        asked = [question(text, source, target, self.entry.names) for text in texts]
        rows = [models.tokens(self._ready, models.render(self._ready, text, "")) for text in asked]
        room = models.context(self._ready) - self.entry.max_new_tokens
        prompts = [
            Prompt(id=str(at), cluster=str(at), language="", text=text)
            for at, (text, row) in enumerate(zip(asked, rows, strict=True))
            if len(row) <= room
        ]
        answers = models.generate(
            self._ready, prompts, max_new_tokens=self.entry.max_new_tokens, batch_size=self.entry.batch_size
        )
        said = {answer.prompt.id: Said(answer.text, answer.truncated) for answer in answers}
        return [said.get(str(at), Said("", True)) for at in range(len(texts))]


class Served:
    """A chat model behind an OpenAI-compatible endpoint, asked in the same words."""

    def __init__(self, entry: EngineEntry) -> None:
        self.entry = entry

    def about(self) -> dict[str, str | int]:
        """Return everything that is known of what the translations depend on."""
        model = Model(name=self.entry.model, source=self.entry.model, revision=self.entry.revision)
        wording = question("{text}", "", "{language}")
        return _about(self.entry, model) | {"url": self.entry.url, "wording": wording}

    def check(self, wanted: Sequence[Language]) -> None:
        """Refuse languages without a name.

        Raises:
            UserError: Says which.
        """
        check_names(wanted, self.entry.names)

    @cached_property
    def server(self) -> chat.Server:
        """Where and how to ask."""
        from mlbench.backends import chat

        entry = self.entry
        return chat.Server(
            url=entry.url, model=entry.model, api_key_env=entry.api_key_env, concurrency=entry.batch_size
        )

    def translate(self, texts: Sequence[str], source: Language, target: Language) -> list[Said]:
        """Return one translation per text, in order.

        Raises:
            JobError: The server refuses, or stays busy or silent.
        """
        from mlbench.backends import chat

        bodies = [
            {
                "messages": [{"role": "user", "content": question(text, source, target, self.entry.names)}],
                "max_tokens": self.entry.max_new_tokens,
                "temperature": 0,
            }
            for text in texts
        ]
        replies = chat.ask(self.server, bodies, lambda done, total: None)
        return [Said(reply.text.strip(), reply.truncated) for reply in replies]


def question(text: str, source: Language, target: Language, names: dict[Language, str] | None = None) -> str:
    """Return the request to translate a text, in Hunyuan-MT's words: Chinese ones where Chinese is one of the two."""
    chinese = "zh" in (source.split("-")[0], target.split("-")[0])
    called = (names or {}).get(target) or _name(target, "zh" if chinese else "en")
    if chinese:
        return f"把下面的文本翻译成{called}，不要额外解释。\n\n{text}"
    return f"Translate the following segment into {called}, without additional explanation.\n\n{text}"


def check_names(wanted: Sequence[Language], names: dict[Language, str]) -> None:
    """Refuse languages that have no name to ask for.

    Raises:
        DataError: Says which.
    """
    for language in wanted:
        if language not in names:
            languages.code(language)


def _name(language: Language, speaker: Language) -> str:
    from babel import Locale

    called = Locale(speaker).languages.get(language.replace("-", "_"))
    return unicodedata.normalize("NFC", called or languages.name(language))


@contextmanager
def _loading(start: Checkpoint) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load the model {start.base!r}: {str(error).splitlines()[0]}") from error


def _about(entry: EngineEntry, model: Model) -> dict[str, str | int]:
    return {
        "kind": entry.kind,
        "model": entry.model,
        "revision": model.revision,
        "dtype": entry.dtype,
        "max_new_tokens": entry.max_new_tokens,
        "names": json.dumps(entry.names, sort_keys=True, ensure_ascii=False),
    }
