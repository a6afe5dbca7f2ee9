"""Train a reconstruction network on as a GAN: against a discriminator that tells its images from real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch.nn import functional

from tomolens.core.errors import OptionError
from tomolens.training.learner import Batch, Learner, Loss, Terms

if TYPE_CHECKING:
    from torch import nn

    from tomolens.training.config import RunConfig
    from tomolens.training.team import Team

_COARSE = 8
_MOMENTUM = (0.5, 0.9)


@dataclass(frozen=True)
class Adversary:
    """The discriminator, and what the network is held to beside deceiving it.

    Parameters
    ----------
    channels, layers
        Of the discriminator: those of its first layer, and how many halve the image.
    learning_rate
        Peak of the discriminator's own, which follows the network's.
    deceit, features, coarse, faithful
        Weights: of deceiving the discriminator; of the difference between its features of the image that was made and
        of the real one; of the difference between their means over 8 by 8 pixels, so that nothing large is invented;
        and of the loss that the network was trained with before.
    """

    channels: int = 64
    layers: int = 3
    learning_rate: float = 2e-4
    deceit: float = 0.3
    features: float = 2.0
    coarse: float = 1.0
    faithful: float = 1.0

    def __post_init__(self) -> None:
        if min(self.channels, self.layers) < 1 or self.learning_rate <= 0:
            raise OptionError("The adversary's channels, layers and learning_rate are above 0.")


@dataclass(frozen=True, eq=False)
class Pictures:
    """What the discriminator is shown, each (n, 1, row, column), with noise and fine detail of the order of 1.

    It sees their inverse hyperbolic sine, so that strong edges do not drown the texture.

    Parameters
    ----------
    given
        What the network made its image of.
    made
        Its image.
    real
        What such an image looks like.
    """

    given: torch.Tensor
    made: torch.Tensor
    real: torch.Tensor


class AdversarialLearner(Learner):
    """A learner whose network also learns to deceive a discriminator, which learns beside it.

    Least squares GAN (Mao et al. 2017) with MONAI's `PatchDiscriminator`, which sees the given image beside the one to
    be judged (Isola et al. 2017), and feature matching (Wang et al. 2018). Alone, not in a team.
    """

    def __init__(
        self,
        network: nn.Module,
        config: RunConfig,
        team: Team,
        adversary: Adversary,
        pictures: Callable[[Any, Batch], Pictures],
    ) -> None:
        super().__init__(network, config, team)
        self.adversary, self._pictures = adversary, pictures
        self.discriminator = PatchDiscriminator(
            spatial_dims=2, channels=adversary.channels, in_channels=2, num_layers_d=adversary.layers, norm="INSTANCE"
        ).to(team.backend.device)
        self.critic = torch.optim.AdamW(self.discriminator.parameters(), lr=adversary.learning_rate, betas=_MOMENTUM)
        self._judged = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def state(self) -> dict[str, Any]:
        """As of `Learner`, and the discriminator."""
        kept = {name: getattr(self, name).state_dict() for name in ("discriminator", "critic")}
        return {**super().state(), **kept}

    def resume(self, state: Mapping[str, Any]) -> None:
        """As of `Learner`."""
        for name in ("discriminator", "critic"):
            getattr(self, name).load_state_dict(state[name])
        super().resume(state)

    def _terms(self, batch: Batch, loss: Loss) -> Terms:
        """The discriminator makes a step of its own, then the network is told how it deceives it."""
        answer = self._answer(self._asked, batch)
        pictures = self._pictures(answer, batch)
        faithful = {name: (self.adversary.faithful * part, n) for name, (part, n) in loss(answer, batch).items()}
        count = torch.tensor(float(len(pictures.made)), device=pictures.made.device)
        means = {"gan_discriminator_loss": self._discriminate(pictures), **self._deceive(pictures)}
        return {**faithful, **{name: (count * mean, count) for name, mean in means.items()}}

    def _discriminate(self, pictures: Pictures) -> torch.Tensor:
        """Its loss, after which it has learned; nothing of it teaches the network."""
        self.discriminator.requires_grad_(True)
        made, real = (self._features(pictures.given, image)[-1] for image in (pictures.made.detach(), pictures.real))
        loss: torch.Tensor = 0.5 * (self._judged(made, False, True) + self._judged(real, True, True))
        for group in self.critic.param_groups:
            group["lr"] = self.adversary.learning_rate * self.schedule.rate(self.steps) / self.schedule.peak
        self.critic.zero_grad()
        torch.autograd.backward(loss)
        self.critic.step()
        return loss.detach()

    def _deceive(self, pictures: Pictures) -> dict[str, torch.Tensor]:
        """The network's terms; the discriminator learns nothing by them."""
        self.discriminator.requires_grad_(False)
        *seen, judgement = self._features(pictures.given, pictures.made)
        *wanted, _ = self._features(pictures.given, pictures.real)
        off = torch.stack([functional.l1_loss(one, other) for one, other in zip(seen, wanted, strict=True)]).mean()
        coarse = functional.avg_pool2d(pictures.made - pictures.real, _COARSE).abs().mean()
        return {
            "gan_deceit_loss": self.adversary.deceit * self._judged(judgement, True, False),
            "gan_features_loss": self.adversary.features * off,
            "gan_coarse_loss": self.adversary.coarse * coarse,
        }

    def _features(self, given: torch.Tensor, image: torch.Tensor) -> list[torch.Tensor]:
        """What each of the discriminator's layers makes of an image beside the given one; its judgement is the last."""
        backend = self.team.backend
        with torch.autocast(backend.device.type, backend.dtype, enabled=backend.dtype != torch.float32):
            layers: list[torch.Tensor] = self.discriminator(torch.asinh(torch.cat([given, image], dim=1)))
        return [layer.float() for layer in layers]
