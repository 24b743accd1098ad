"""Pictures: file <-> `Picture` <-> tensor in [-1, 1]; the only place that knows integers, EXIF, ICC and file formats.

read, write                  files in and out (libvips)
open_large, write_in_bands   the same, of pictures too large for memory
read_record, read_size, check_file   what a file's header says
check_target                 whether a result can be written, before the work
from_pil, to_pil             PIL in and out
from_batch, to_batch         tensors in and out, as ComfyUI has them
find_pictures, by_name       files, folders, globs; the same by their names
read_frame, glimpsed, write_shown   for screens: what a header tells, a small picture of it, a file that browsers show
read_reduced                 a file made small while it is decoded
as_picture, fitted           whatever a user hands over; its pixels at working size
condition_of, Condition      how good a picture is as it is
verify, Verdict              what holds of a picture that says how it was made
Signature                    what signs a result
PREVIEWED, RESTORED          what a result says of its digital source
notes_of, with_grain         what the record says of that; the photo's grain on the result
mask_of, masks_in, check_masks, shares_of, Kept   masks and regions at working size, in latent pixels, on the result
check_faces, with_faces, FoundFaces   whether faces can be found; what is asked of them as a region, and which they are
Portrait, Placed, portrait_options   a face that is restored by itself, on its place; and how it is restored
working_size, scale_within, resize, pad_to_multiple, side_by_side, write_sheet

Names are loaded when first used: what finds pictures and names results needs no torch.
"""

from typing import TYPE_CHECKING

from supir.lazy import lazy_names

if TYPE_CHECKING:
    from supir.image.batches import from_batch, to_batch, write_masks
    from supir.image.comparing import sheet_size, side_by_side, write_sheet
    from supir.image.condition import Condition, condition_of
    from supir.image.credentials import Signature
    from supir.image.faces import FoundFaces, check_faces, with_faces
    from supir.image.fitting import Fitted, PictureLike, as_picture, fitted, notes_of, with_grain
    from supir.image.large import LARGE, LargePicture, open_large
    from supir.image.marking import PREVIEWED, RESTORED
    from supir.image.masks import check_masks, mask_of, masks_in
    from supir.image.opening import MAX_PIXELS, read_size
    from supir.image.paths import DEVELOPED, SUFFIXES, by_name, check_target, find_pictures
    from supir.image.picture import Picture, from_pil, to_pil
    from supir.image.portraits import Placed, Portrait, portrait_options
    from supir.image.reading import check_file, read, read_record
    from supir.image.regions import Kept, shares_of
    from supir.image.showing import glimpsed, read_frame, read_reduced, read_toning, write_shown
    from supir.image.sizes import pad_to_multiple, resize
    from supir.image.verifying import Verdict, verify
    from supir.image.working import UNASKED, WorkingSize, scale_within, working_size
    from supir.image.writing import write, write_in_bands

__getattr__ = lazy_names(
    __name__,
    {
        "batches": ("from_batch", "to_batch", "write_masks"),
        "comparing": ("sheet_size", "side_by_side", "write_sheet"),
        "condition": ("Condition", "condition_of"),
        "credentials": ("Signature",),
        "faces": ("FoundFaces", "check_faces", "with_faces"),
        "fitting": ("Fitted", "PictureLike", "as_picture", "fitted", "notes_of", "with_grain"),
        "large": ("LARGE", "LargePicture", "open_large"),
        "marking": ("PREVIEWED", "RESTORED"),
        "masks": ("check_masks", "mask_of", "masks_in"),
        "paths": ("DEVELOPED", "SUFFIXES", "by_name", "check_target", "find_pictures"),
        "picture": ("Picture", "from_pil", "to_pil"),
        "opening": ("MAX_PIXELS", "read_size"),
        "portraits": ("Placed", "Portrait", "portrait_options"),
        "reading": ("check_file", "read", "read_record"),
        "regions": ("Kept", "shares_of"),
        "showing": ("glimpsed", "read_frame", "read_reduced", "read_toning", "write_shown"),
        "sizes": ("pad_to_multiple", "resize"),
        "verifying": ("Verdict", "verify"),
        "working": ("UNASKED", "WorkingSize", "scale_within", "working_size"),
        "writing": ("write", "write_in_bands"),
    },
)
