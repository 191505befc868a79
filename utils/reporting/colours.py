"""The colours of figures and pages: Okabe and Ito's palette, distinct under the common forms of colour blindness.

The lightness of the first three (CIE L* of 46, 71 and 58) tells them apart in greyscale, too.
"""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")  # of methods; of A, V and AV
TRUTH_COLOUR, TRACK_COLOUR = "#333333", "#F1F1F1"
TEXT_GREY, RULE_GREY, GRID_GREY, EMPTY_GREY = "#666666", "#BBBBBB", "#E4E4E4", "#DDDDDD"
EVENT_COLOURS = dict(zip(("audible", "visible", "both"), COLOURS, strict=False))  # of pages
DARK_EVENT_COLOURS = EVENT_COLOURS | {"audible": COLOURS[4]}
