; tight.asm - two instructions of a kernel in the smallest loop there is, COUNT times.
;
; For tests/bench/patched.py: between the loop's entry and its branch there is no room for a jump
; of five bytes. The other names are those of repeated.asm.

%include "guest.inc"

start:
    mov ecx, COUNT
.again:
    FIRST
    SECOND
    loop .again
    exit 0
