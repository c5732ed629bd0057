"""Replay: a stored decision is decided again from all it rested on, and has to come out the same."""

from dataclasses import fields, replace

from autoscaler.decision import Decision, Evaluation, decide
from autoscaler.facts import Reason


def differences(evaluation: Evaluation) -> tuple[str, ...]:
    """The fields of a stored decision that come out otherwise when it is decided again from its facts.

    Where the rules wanted to buy and the purchase could not be reserved, it is their decision that is replayed.
    """
    stored, again = evaluation.decision, decide(evaluation.facts)
    if stored.reason in (Reason.RACED, Reason.NO_PASSWORD) and stored.sentence.endswith(again.sentence):
        again = replace(
            again,
            outcome=stored.outcome,
            reason=stored.reason,
            add=stored.add,
            order_id=stored.order_id,
            sentence=stored.sentence,
        )
    return tuple(f.name for f in fields(Decision) if getattr(stored, f.name) != getattr(again, f.name))
