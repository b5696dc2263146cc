"""Which class of transformers reads a folder's weights: a causal language model, or the one around a text model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from watermark.errors import DyetraceError
from watermark.models.given import SERVE, shown


def model_class(folder: Path, called: Path) -> Any:
    """The class whose ``from_pretrained`` reads all weights of a folder.

    Models that also see or hear are read whole by the class that their config.json names, and shown text alone.

    Parameters
    ----------
    folder, called
        Where its files are, and what people call it.

    Raises
    ------
    DyetraceError
        It predicts no next tokens of a text alone: an encoder with a decoder, a classifier and the like.
    """
    import transformers
    from transformers.models.auto import modeling_auto

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    composite = bool(getattr(type(config), "sub_configs", None)) and config.get_text_config() is not config
    named: list[Any] = [getattr(transformers, str(name), None) for name in config.architectures or ()]
    fits = [one for one in named if one is not None and getattr(one, "config_class", None) is type(config)]
    if getattr(config, "is_encoder_decoder", False) and not any(one.__name__.endswith("ForCausalLM") for one in fits):
        raise DyetraceError(
            f"model folder {called} holds {_architecture(config)}, an encoder with a decoder, which reads no text as a "
            f"causal language model does; {SERVE}"
        )
    if composite and fits and fits[0].can_generate():
        return fits[0]
    if type(config) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING:
        return transformers.AutoModelForCausalLM
    if type(config) in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText
    raise DyetraceError(
        f"model folder {called} holds {_architecture(config)}, which transformers {transformers.__version__} does not "
        f"know as a causal language model; {SERVE}"
    )


def _architecture(config: Any) -> str:
    return shown((config.architectures or [type(config).__name__.removesuffix("Config")])[0], 80)
