"""Trust: what a result kept of its input, what was reconstructed, and what was invented.

audit            of a pair: a report, an overlay, a sentence
windows          means around places, cells
damage           what was done to the photo, estimated
witness          what else the input could have become, by the bundled model
evidence         what speaks for and against each place
calibration      what makes evidence a map, and promises about it
conformal        thresholds with a guarantee
calibrating      calibrations, made from photographs
consistency      the result damaged again, against the input
auditing         the map, its classes, contradictions
boxes            places that hang together
letters          texts before and after
faces            faces before and after, by an embedding
"""

from typing import TYPE_CHECKING

from supir.lazy import lazy_names

if TYPE_CHECKING:
    from supir.audit.calibration import Calibration
    from supir.audit.report import Report, audit, check_asked, doubted
    from supir.audit.witness import open_witness

__getattr__ = lazy_names(
    __name__,
    {
        "calibration": ("Calibration",),
        "report": ("Report", "audit", "check_asked", "doubted"),
        "witness": ("open_witness",),
    },
)
