; nano_callret - a call and its return.
;
; Nothing about it is sensitive. But a binary translator moves code, and the guest must find its own
; return address on the stack: so each RET has to look up where its target has gone.

%include "nano.inc"

start:
    call read_command_line
    mov ecx, [count]
    mov edx, 0
.again:
    call routine
    dec ecx
    jnz .again
    report "callret"

routine:
    inc edx
    ret
