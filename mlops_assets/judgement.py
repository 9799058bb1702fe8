"""Everything that gates look at, gathered for one version and one place."""

from typing import Any

import dagster as dg

from mlops_assets import approval
from mlops_assets.evidence import Comparison, Integrity, Manifest
from mlops_assets.files import digest_json, read_json
from mlops_assets.gates import Facts, Policy, Verdict, policy_of, verdicts
from mlops_assets.spec import Gates
from resources.artifacts import Artifacts
from resources.attempts import CutShort
from resources.environment import Environment
from resources.registry import Registry, Version
from resources.serving import Serving
from resources.training import RunContext, Training, TrainingError, TrainingKilledError
from resources.verification import Verification

#: Kind of the registry's records of what served where.
DEPLOYMENTS = "deployments"


class Judge(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Judges versions; makes what is missing for it: a comparison, a verification."""

    root: str
    artifacts: dg.ResourceDependency[Artifacts]
    registry: dg.ResourceDependency[Registry]
    serving: dg.ResourceDependency[Serving]
    training: dg.ResourceDependency[Training]
    verification: dg.ResourceDependency[Verification]

    def judge(
        self,
        context: RunContext,
        version: Version,
        environment: Environment | None = None,
        mismatched: list[str] | None = None,
    ) -> list[Verdict]:
        """What every gate says about a version, for an environment or by the model's own policy.

        Args:
            context: of the asset or check that asks; a comparison may have to be made in its run.
            version: the version.
            environment: whose limits come on top of the model's own.
            mismatched: ``version.mismatched()``, where it is asked more than once.

        A version whose manifest was changed on disk is judged by its integrity alone: nothing
        that it claims about itself is worth reading.
        """
        mismatched = version.mismatched() if mismatched is None else mismatched
        if {"manifest.json", "evidence.json"} & set(mismatched):
            reason = (
                f"files differ from what was registered: {', '.join(mismatched)}; "
                "release the model again"
            )
            return [Verdict("integrity", "closed", reason)]
        manifest = version.manifest
        champion = self.serving.champion(version.model, self.registry)
        rollback = environment is not None and has_served(self.registry, version, environment.name)
        comparison = None
        if champion is not None and champion.digest != version.digest and not rollback:
            comparison = self.comparison(context, version, manifest, champion)
        facts = Facts(
            manifest=manifest,
            evidence=version.evidence,
            integrity=self.integrity(version, mismatched),
            digest=version.digest,
            champion=champion.digest if champion else None,
            comparison=comparison,
            rollback=rollback,
        )
        return verdicts(facts, policy(manifest, environment))

    def integrity(self, version: Version, mismatched: list[str]) -> Integrity:
        """Digests as they are now; loading and predicting as found once, for unchanged bytes."""
        if mismatched:
            return Integrity(mismatched=mismatched, loads=False, error=None, max_difference=None)
        for record in self.registry.records(version.model, "verifications"):
            if record["digest"] == version.digest:
                return Integrity.model_validate(record)
        found = self.verification.verify(version.bundle, version.digest)
        content = {**found.model_dump(), "version": version.version, "digest": version.digest}
        self.registry.record(version.model, "verifications", content)
        return found

    def comparison(
        self,
        context: RunContext,
        version: Version,
        manifest: Manifest,
        champion: Version,
    ) -> Comparison:
        """The record of a version against a champion; made now if there is none yet."""
        holdout = version.evidence.holdout.digest
        for record in reversed(self.registry.records(version.model, "comparisons")):
            if (record["candidate"], record["champion"], record["holdout"]) == (
                manifest.identity,
                champion.digest,
                holdout,
            ):
                return Comparison.model_validate(record)
        content = self._compare(context, version, manifest, champion, holdout)
        self.registry.record(version.model, "comparisons", content)
        return Comparison.model_validate(content)

    def _compare(
        self,
        context: RunContext,
        version: Version,
        manifest: Manifest,
        champion: Version,
        holdout: str,
    ) -> dict[str, Any]:
        snapshot = self.artifacts.path("snapshots", manifest.snapshot.digest) / "data.parquet"
        with self.artifacts.workspace() as folder:
            output = folder / "output"
            output.mkdir()
            request = {
                "mode": "compare",
                "identity": digest_json([version.digest, champion.digest]),
                "model": version.model,
                "repository": self.root,
                "snapshot": str(snapshot),
                "candidate": {"bundle": str(version.bundle), "digest": version.digest},
                "champion": champion_request(champion),
            }
            try:
                self.training.run(context, request, output)
                found = read_json(output / "comparison.json")
            except TrainingKilledError as error:
                raise CutShort(str(error), allow_retries=False) from None
            except TrainingError as error:
                found = {
                    "champion": champion.digest,
                    "version": champion.version,
                    "rows": 0,
                    "status": "incomparable",
                    "reason": str(error).splitlines()[0],
                    "metrics": {},
                }
        return {**found, "candidate": manifest.identity, "holdout": holdout}


def has_served(registry: Registry, version: Version, environment: str) -> bool:
    """Whether this very version has served an environment, its samples passed."""
    return any(
        record["environment"] == environment and record["digest"] == version.digest
        for record in registry.records(version.model, DEPLOYMENTS)
    )


def promotion(registry: Registry, version: Version, environment: Environment) -> list[Verdict]:
    """What must have happened to a version before an environment: served, approved."""
    found: list[Verdict] = []
    before = environment.promotes_from
    if before and has_served(registry, version, before):
        found.append(Verdict("promotion", "open", f"served {before} with its samples passed"))
    elif before:
        reason = (
            f"version {version.version} has not served {before} yet; "
            f"materialize {before}_endpoint first"
        )
        found.append(Verdict("promotion", "closed", reason))
    approved = approval.verdict(registry, version, environment)
    return [*found, approved] if approved else found


def policy(manifest: Manifest, environment: Environment | None) -> Policy:
    """The released model.yaml's gates, tightened by an environment's."""
    own = Gates.model_validate(manifest.policy)
    if environment is None:
        return policy_of(own)
    extra = environment.gates_of(manifest.model)
    return policy_of(
        own,
        extra.quality,
        extra.champion,
        extra.parity,
        extra.slices,
        development=environment.development,
    )


def champion_request(champion: Version | None) -> dict[str, Any] | None:
    """How the training process is told about the version to compare with."""
    if champion is None:
        return None
    return {
        "bundle": str(champion.bundle),
        "digest": champion.digest,
        "version": champion.version,
    }
