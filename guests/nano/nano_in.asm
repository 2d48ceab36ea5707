; nano_in - a byte read from a port.
;
; On a bare machine the byte comes over a bus, which takes a microsecond; a virtual device is a
; variable. The port is 0x80, where a PC has no device that answers.

%include "nano.inc"

NO_DEVICE equ 0x80

start:
    call read_command_line
    mov ecx, [count]
    mov edx, 0
.again:
    in al, NO_DEVICE
    inc edx
    dec ecx
    jnz .again
    report "in"
