; clock - time, told by interrupts.
;
; The timer interrupts a hundred times a second; in between there is nothing to do, and HLT says
; so. The handler only counts. "STI, HLT" is safe as a pair: STI lets interrupts in after the
; instruction that follows, so none can arrive before HLT has begun to wait.

%include "guest.inc"
%include "timer.inc"

HERTZ equ 100

section .data
align 4
ticks: dd 0

section .text
start:
    call install_gdt
    call install_interrupts
    call install_interrupt_lines
    on_vector IRQ_BASE + TIMER_LINE, on_timer
    timer_rate HERTZ
    unmask_line TIMER_LINE

    mov ebx, 0                          ; tenths of a second
.tenth:
    inc ebx
    imul esi, ebx, HERTZ / 10           ; the tick at which it is over
.wait:
    cli
    cmp [ticks], esi
    jae .over
    sti
    hlt
    jmp .wait
.over:
    print "0."
    print_decimal ebx
    print " s: "
    print_decimal esi
    print_line " ticks"
    cmp ebx, 5
    jb .tenth
    exit 0

on_timer:
    inc dword [ticks]
    end_of_interrupt
    ret
