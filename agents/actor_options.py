"""Where actors play, and what their number and that of environments must be to each other."""

import re
from dataclasses import dataclass

_RAY = re.compile(
    r"(?P<cluster>ray(://(?P<host>[^/:\s]+|\[[^]\s]+\]):(?P<port>\d{1,5}))?)(/(?P<count>[1-9]\d*))?"
)


@dataclass(frozen=True)
class ActorPlan:
    """How many actors there are, and where they play."""

    count: int | None
    """None: as many as the cluster has CPUs for."""

    cluster: str | None = None
    """`ray` or `ray://host:port`; None: processes of this machine."""

    host: str = ""
    port: int = 0

    @classmethod
    def of(cls, actors: int | str) -> "ActorPlan":
        """Return what `agent.actors` says.

        Raises:
            ValueError: it is neither a number nor the address of a Ray cluster.
        """
        if not isinstance(actors, str):
            return cls(actors)
        found = _RAY.fullmatch(actors)
        if found is None or int(found["port"] or 0) > 65535:
            raise ValueError(
                f"agent.actors={actors!r}: expected an integer >= 0, `ray` or `ray://host:port`, "
                "the last two perhaps with a number of actors as in `ray/8`"
            )
        count = None if found["count"] is None else int(found["count"])
        host = (found["host"] or "").strip("[]")
        return cls(count, found["cluster"], host, int(found["port"] or 0))


def most_actors(num_envs: int, cpus: int) -> int:
    """Return the most actors, with a CPU each, that environments can be divided among."""
    return max(n for n in range(1, max(cpus, 1) + 1) if num_envs % n == 0)


def check_actors(actors: int | str, num_envs: int) -> None:
    """Refuse actors that environments cannot be divided among.

    Raises:
        ValueError: there are more of them than environments, or one would have fewer than others.
    """
    count = ActorPlan.of(actors).count or 1
    if count > num_envs:
        raise ValueError(
            f"agent.actors={actors}: more actors than environments (env.num_envs={num_envs}): use "
            f"{num_envs} at most"
        )
    if num_envs % count:
        raise ValueError(
            f"agent.actors={actors} does not divide env.num_envs={num_envs}: use a divisor of "
            f"{num_envs}"
        )


def check_targets(actors: int | str, advantages: str) -> None:
    """Refuse targets of A2C that take the policy that acted for the policy that learns.

    Raises:
        ValueError: there are actors, and the advantages are not those of V-trace.
    """
    if actors and advantages != "vtrace":
        raise ValueError(
            f"agent.actors={actors} with agent.advantages={advantages}: rollouts of actors are an "
            "older policy's; use agent.advantages=vtrace, which corrects for it"
        )
