"""Which token follows, from the model's logits: greedy, or drawn from the nucleus with a seed per request."""

from typing import TYPE_CHECKING

from contract.trial_spec import SamplingSpec

if TYPE_CHECKING:
    import torch


class TokenChooser:
    """Chooses the tokens of one request.

    Args:
        sampling: how they are drawn; temperature 0 takes the most likely one.
        seed: of this request's draws.
    """

    def __init__(self, sampling: SamplingSpec, seed: int) -> None:
        import torch

        self._sampling = sampling
        # On the CPU, so that a seed draws the same on every device.
        self._generator = torch.Generator().manual_seed(seed)

    def choose(self, logits: "torch.Tensor") -> int:
        """The next token.

        Args:
            logits: of one position, shape (n_vocabulary,), any float type and device.
        """
        import torch

        if self._sampling.temperature == 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits.float().cpu() / self._sampling.temperature, dim=-1)
        if self._sampling.top_p < 1:
            probabilities = _nucleus(probabilities, self._sampling.top_p)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def _nucleus(probabilities: "torch.Tensor", top_p: float) -> "torch.Tensor":
    """The smallest set of most likely tokens whose probabilities reach `top_p`; the others get none.

    Holtzman et al., The Curious Case of Neural Text Degeneration (ICLR 2020), section 3.1.
    """
    ordered, indices = probabilities.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    ordered[before >= top_p] = 0.0
    return probabilities.new_zeros(probabilities.shape).scatter(-1, indices, ordered)
