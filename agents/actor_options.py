"""What the numbers of actors and of environments must be to each other."""


def check_actors(actors: int, num_envs: int) -> None:
    """Refuse actors that environments cannot be divided among.

    Raises:
        ValueError: there are more of them than environments, or one would have fewer than others.
    """
    if actors > num_envs:
        raise ValueError(
            f"agent.actors={actors}: more actors than environments (env.num_envs={num_envs}): use "
            f"{num_envs} at most"
        )
    if actors and num_envs % actors:
        raise ValueError(
            f"agent.actors={actors} does not divide env.num_envs={num_envs}: use a divisor of "
            f"{num_envs}"
        )


def check_targets(actors: int, advantages: str) -> None:
    """Refuse targets of A2C that take the policy that acted for the policy that learns.

    Raises:
        ValueError: there are actors, and the advantages are not those of V-trace.
    """
    if actors and advantages != "vtrace":
        raise ValueError(
            f"agent.actors={actors} with agent.advantages={advantages}: rollouts of actors are an "
            "older policy's; use agent.advantages=vtrace, which corrects for it"
        )
