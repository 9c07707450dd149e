"""Archive directories, read once and as torch's own reader reads them; and zip files written.

What this room is: where members lie and what is odd about the way they are listed. What it is
not: it gives no meaning to a member, and it judges nothing. The formats call it; it calls
`stores`, `facts` and `errors`.

`tar.read_directory` opens tar archives and lists what is odd about those at its top.
`zip.read_directory` opens, `zip_writer.ZipPlan` writes. The layout of zip is that of PKWARE's
APPNOTE 6.3.10; where that leaves a choice, the reader follows miniz as torch ships it, and
every place where another reader (Python's zipfile, a strict one) would choose otherwise is an
`Anomaly`. Its kinds, known from the directory alone:

several-directories    an earlier end record reaches to the end of the file just as well
trailing-bytes         bytes behind the archive comment
comment-length         the comment is said to be longer than the file
comment-bytes          the comment is no text, or reads like a pickle
zip64-contradiction    64-bit fields say other than the 32-bit ones, or lie elsewhere than they must
directory-shift        the directory does not end where the end record begins: zipfile then moves
                       every offset, torch moves none
entry-count            bytes are left in the directory after as many entries as it announces
prefix-bytes           bytes before the first local header
unlisted-bytes         more bytes between two members than any padding explains
overlapping-members    a member lies in another one or in the directory
duplicate-member       one name twice
case-collision         names that differ in case only: torch's lookup ignores case
several-roots          members of a torch archive outside its root folder
path-traversal         `..`, an absolute path, a backslash or a NUL in a name
unicode-path           an extra field gives the member another name
extra-field            an extra field longer than the room for it
encrypted-member, strong-encryption, patched-member, unsupported-method, directory-with-data

and those known once a member's own header or bytes have been read:

local-name-differs, local-flags-differ, local-method-differs, local-size-differs,
local-checksum-differs, descriptor-differs, unlisted-bytes, overlapping-members,
trailing-compressed-bytes, bad-checksum
"""
