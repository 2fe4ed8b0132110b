"""Whether a fit reads the times of histories, if its settings leave that open."""

from index.encoders import ENCODERS
from index.encoders.arguments import TIME_GAPS
from training.config import ConfigError, FitConfig
from training.data.time_units import describe, unit_of


def with_time_gaps(config: FitConfig, moment: float) -> FitConfig:
    """The settings, decided: an encoder that can reads the times of a log of Unix times.

    moment: a time of the log. Raises ConfigError if times are asked for that the log has not.
    """
    has_times = unit_of(moment) is not None
    if config.time_gaps is None and TIME_GAPS in ENCODERS[config.encoder].Arguments.model_fields:
        return config.model_copy(update={TIME_GAPS: has_times})
    if config.time_gaps and not has_times:
        raise ConfigError(
            f"time_gaps = true: the log's time {describe(moment)}, so it tells the order of events "
            "and not how far apart they are; leave time_gaps out, or give a log of Unix times"
        )
    return config
