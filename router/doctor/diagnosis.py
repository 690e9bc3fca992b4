"""Compare what the configuration says with what the servers are."""

from dataclasses import dataclass

from router.doctor.findings import SESSION, Case, Finding, examine


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found in one cluster.

    Attributes:
        cluster: its id.
        nodes: the nodes that were asked.
        findings: what is not as it should be, worst first.
    """

    cluster: str
    nodes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    def failed(self, *, strict: bool = False) -> bool:
        """Whether there is an error; with `strict` a warning is one."""
        bad = ("error", "warning") if strict else ("error",)
        return any(finding.level in bad for finding in self.findings)

    def __str__(self) -> str:
        count = len(self.findings)
        told = f"{count} finding{'' if count == 1 else 's'}" if count else "nothing found"
        head = f"{self.cluster}: {', '.join(self.nodes)}: {told}"
        return "\n".join([head, *(f"  {finding}" for finding in self.findings)])


def doctor(target: object) -> Diagnosis:
    """Ask every server of a cluster, and say what is wrong with it or its configuration.

    Takes some seconds where a server does not answer, and changes nothing.

    Args:
        target: a routed engine, a `Router`, a `Config` or the primary's URL.

    Raises:
        ConfigError: the target is none of these, or malformed.
    """
    from router.doctor.survey import survey
    from router.target import router_of

    router, own = router_of(target)
    try:
        config, servers = router.config, router.servers
        snapshot = router.refresh()
        asked = {node.name: server for node, server in servers.items()}
        direct = [(SESSION, server) for server in config.sessions()]
        told = survey(config, [*asked.items(), *direct])
        facts = {each.node: each for each in told[: len(asked)]}
        # Where session_url names several hosts, the primary among them is meant.
        sessions = sorted(told[len(asked) :], key=lambda each: (not each.ok, each.standby))
        session = next(iter(sessions), None)
        case = Case(config, servers, facts, snapshot, session, router.classifier.unparsed)
        return Diagnosis(router.cluster, tuple(facts), examine(case))
    finally:
        if own:
            router.close()
