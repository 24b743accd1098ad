"""Files written whole or not at all, folders that are ours, what is the same file, and what an error means.

Everything in which Linux, macOS and Windows differ about files stands in this room, with another way where one of them
lacks something, so that no other module asks which system it runs on:

    to flush a file               macOS's fsync stops at the drive's cache; Windows's wants it writable (`flush`)
    to flush a folder             not on Windows (`flush`)
    to rename over an open file   Windows refuses while another process reads it: tried for a while (`replace`)
    to open a file a second time  not while Windows deletes it on closing (`temporary_file`)
    to read at a place            no `pread` on Windows (`read_at`)
    to keep other processes out   `flock`, or Windows's own locks: by the library filelock (`alone`)
    capitals, and accents         to many disks IMG.jpg and img.jpg are one name, or the two ways to store é (`Places`)
    names                         CON, NUL, a dot at the end (`name_fault`); 260 characters (`sentence`)
"""

from supir.files.folders import alone, check_ours, strangers
from supir.files.journal import add_entries, read_entries, whole_lines, write_entries
from supir.files.places import Places, check_apart, path_within, stamp_of
from supir.files.saying import check_absent, check_writable, disk_error, lacks_room, name_fault, sentence
from supir.files.whole import (
    flush,
    folder_whole,
    is_temporary,
    open_to_read,
    read_at,
    remove,
    replace,
    sweep,
    temporary_file,
    temporary_name,
    write_whole,
    written_whole,
)
