"""What may come next: a chain of small functions on the logits, built once from the settings.

Shapes: S branches, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from sensorium.errors import UsageError
from sensorium.infer.branch import Branch
from sensorium.infer.grammar import allowed
from sensorium.infer.settings import GenerationSettings

Filter = Callable[[Tensor, Sequence[Branch]], Tensor]
"""(logits [S, V], the branches they belong to) → logits [S, V]; it may write into those it was given."""
NEVER = float("-inf")
"""The logit of a token that can't be chosen."""


def make_filters(settings: GenerationSettings) -> list[Filter]:
    """What holds however the next token is chosen, in the order of ``transformers``; before all, the grammar."""
    filters: list[Filter] = [_grammar] if settings.constraint else []
    if settings.repetition_penalty != 1.0:
        filters.append(repetition(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        filters.append(_banned(lambda branch: repeated(branch.tokens, settings.no_repeat_ngram_size)))
    ends = settings.end_ids
    phrases = [ids for ids in settings.bad_words_ids if not (len(ids) == 1 and ids[0] in ends)]
    if phrases:
        filters.append(_banned(lambda branch: completed(branch.tokens, phrases)))
    if ends and (settings.min_length or settings.min_new_tokens):
        filters.append(_banned(lambda branch: ends if _too_short(branch, settings) else ()))
    if settings.forced_bos_token_id is not None:
        first = [settings.forced_bos_token_id]
        filters.append(_forced(lambda branch: first if len(branch.tokens) == 1 else ()))
    if settings.forced_end_ids:
        last = settings.forced_end_ids
        filters.append(_forced(lambda branch: last if branch.num_new == branch.most_new - 1 else ()))
    if settings.suppress_tokens:
        filters.append(_banned(lambda branch: settings.suppress_tokens))
    if settings.begin_suppress_tokens:
        after = settings.forced_bos_token_id is not None
        filters.append(_banned(lambda branch: settings.begin_suppress_tokens if _begins(branch, after) else ()))
    return filters


def make_warpers(settings: GenerationSettings) -> list[Filter]:
    """What sampling draws from: the temperature, then the likeliest."""
    warpers: list[Filter] = []
    if settings.temperature != 1.0:
        warpers.append(lambda logits, branches: logits / settings.temperature)
    if settings.top_k:
        warpers.append(_top_k(settings.top_k))
    if settings.top_p < 1.0:
        warpers.append(_top_p(settings.top_p))
    if settings.min_p:
        warpers.append(_min_p(settings.min_p))
    return warpers


def apply(filters: Sequence[Filter], logits: Tensor, branches: Sequence[Branch]) -> Tensor:
    """[S, V] → [S, V] float32, through all of them. Raises ``UsageError`` where they leave a branch no token."""
    logits = logits.float()
    if not filters:
        return logits
    logits = logits.clone()
    for step in filters:
        logits = step(logits, branches)
    stuck = (logits.amax(dim=-1) == NEVER).nonzero()
    if len(stuck):
        written = branches[int(stuck[0])].num_new
        raise UsageError(f"the settings leave no token to choose after {written} new ones; loosen what they forbid")
    return logits


def repetition(penalty: float) -> Filter:
    """What occurred becomes less likely: positive values are divided, negative ones multiplied by the penalty."""

    def step(logits: Tensor, branches: Sequence[Branch]) -> Tensor:
        for row, branch in zip(logits, branches, strict=True):
            seen = sorted(set(branch.tokens))
            values = row[seen]
            row[seen] = (values / penalty).where(values > 0, values * penalty)
        return logits

    return step


def repeated(tokens: Sequence[int], size: int) -> set[int]:
    """The tokens that would write a row of ``size`` tokens a second time.

    >>> repeated([1, 2, 3, 1, 2], 3), repeated([1, 2, 3], 1), repeated([1], 2)
    ({3}, {1, 2, 3}, set())
    """
    ending = list(tokens[len(tokens) - size + 1 :]) if size > 1 else []
    places = range(len(tokens) - size + 1)
    return {tokens[n + size - 1] for n in places if list(tokens[n : n + size - 1]) == ending}


def completed(tokens: Sequence[int], phrases: Sequence[Sequence[int]]) -> set[int]:
    """The tokens that would write one of the phrases to its end.

    >>> completed([7, 1, 2], [[1, 2, 3], [2, 4], [5], [9, 2, 6]])
    {3, 4, 5}
    """
    before = {size: list(tokens[len(tokens) - size + 1 :]) for size in {len(ids) for ids in phrases}}
    return {ids[-1] for ids in phrases if len(ids) <= len(tokens) + 1 and before[len(ids)] == list(ids[:-1])}


def _grammar(logits: Tensor, branches: Sequence[Branch]) -> Tensor:
    masks = [None if branch.grammar is None else branch.grammar.mask() for branch in branches]
    return logits.masked_fill_(~allowed(masks, logits.shape[-1]).to(logits.device), NEVER)


def _banned(which: Callable[[Branch], Iterable[int]]) -> Filter:
    def step(logits: Tensor, branches: Sequence[Branch]) -> Tensor:
        for row, branch in zip(logits, branches, strict=True):
            if ids := list(which(branch)):
                row[ids] = NEVER
        return logits

    return step


def _forced(which: Callable[[Branch], Iterable[int]]) -> Filter:
    def step(logits: Tensor, branches: Sequence[Branch]) -> Tensor:
        for row, branch in zip(logits, branches, strict=True):
            if ids := list(which(branch)):
                row.fill_(NEVER)
                row[ids] = 0.0
        return logits

    return step


def _too_short(branch: Branch, settings: GenerationSettings) -> bool:
    return branch.num_new < settings.min_new_tokens or len(branch.tokens) < settings.min_length


def _begins(branch: Branch, after_forced: bool) -> bool:
    """Whether its first token comes that is not forced."""
    return branch.num_new == (1 if after_forced and branch.prompt_length == 1 else 0)


def _top_k(k: int) -> Filter:
    def step(logits: Tensor, branches: Sequence[Branch]) -> Tensor:
        smallest = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]  # [S, 1]
        return logits.masked_fill(logits < smallest, NEVER)

    return step


def _top_p(p: float) -> Filter:
    def step(logits: Tensor, branches: Sequence[Branch]) -> Tensor:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)  # probability of the likelier ones
        dropped = (before >= p).scatter(1, order, before >= p)
        return logits.masked_fill(dropped, NEVER)

    return step


def _min_p(p: float) -> Filter:
    def step(logits: Tensor, branches: Sequence[Branch]) -> Tensor:
        probabilities = logits.softmax(dim=-1)  # [S, V]
        return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), NEVER)

    return step
