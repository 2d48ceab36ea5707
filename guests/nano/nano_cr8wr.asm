; nano_cr8wr - a write to a control register that has no side effect.
;
; The paper writes CR8, the task priority, which 64-bit mode has. Here it is CR2: the processor only
; ever writes it, so a value in it changes nothing; but MOV to it is as privileged and as sensitive.

%include "nano.inc"

start:
    call read_command_line
    mov ecx, [count]
    mov edx, 0
.again:
    mov cr2, ecx
    inc edx
    dec ecx
    jnz .again
    report "cr8wr"
