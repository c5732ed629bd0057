"""Who gives an order: the user, by name; root is nobody in particular and has to say."""

import click


def name_of(uid: int) -> str | None:
    """The name of a user; None for root, and for a number without a name, as containers have."""
    import pwd

    try:
        return None if uid == 0 else pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _named(_context: click.Context, _parameter: click.Parameter, author: str | None) -> str:
    import os

    if author is not None:
        if not author.strip() or not author.isprintable():
            raise click.BadParameter("give a name")
        return author.strip()
    name = name_of(os.geteuid())
    if name is None:
        who = "as root" if os.geteuid() == 0 else "as a user without a name"
        raise click.UsageError(f"{who}, say who you are: --author NAME")
    return name


author_option = click.option(
    "--author", callback=_named, help="Who says so; the user by default. As root it must be given."
)


def _given(_context: click.Context, _parameter: click.Parameter, reason: str) -> str:
    if not reason.strip():
        raise click.BadParameter("say why; whoever reads it later was not there")
    return " ".join(reason.split())


reason_option = click.option("--reason", required=True, callback=_given, help="Why; it is kept with it for ever.")
