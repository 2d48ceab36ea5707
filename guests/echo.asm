; echo - reads from the serial port and answers in capitals.
;
; Input is polled as output is: the line status says whether a byte is waiting. Type; end with
; Ctrl-D. (The operating system in os/ does the same by interrupt.)

%include "guest.inc"

END_OF_INPUT equ 4                      ; Ctrl-D

start:
    call read_byte
    cmp al, END_OF_INPUT
    je .end
    cmp al, 'a'
    jb .not_small
    cmp al, 'z'
    ja .not_small
    sub al, 'a' - 'A'
.not_small:
    cmp al, 13                          ; what the Enter key sends
    jne .write
    mov al, 10
.write:
    call write_byte
    jmp start
.end:
    exit 0

; Waits for a byte and returns it in AL. Clobbers EDX.
read_byte:
    mov edx, COM1_LINE_STATUS
.none:
    in al, dx
    test al, RECEIVE_READY
    jz .none
    mov edx, COM1
    in al, dx
    ret
