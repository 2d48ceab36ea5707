; apic_guest.asm - a kernel that lives by its local APIC, for tests/hypervisor/test_apic.py.
;
; Its timer, periodic and one-shot; interrupts that it sends to itself while TPR holds them back; the
; PIT as an edge of the I/O APIC and COM1 as a level. Each handler mixes what it sees - its vector,
; the timer's count, the priorities - into `seen`, which ends in EAX: whoever runs this otherwise, be
; it by one tick, ends with something else.

%include "guest.inc"
%include "interrupts.inc"

APIC            equ 0xFEE00000
APIC_ID         equ APIC + 0x20
APIC_TPR        equ APIC + 0x80
APIC_PPR        equ APIC + 0xA0
APIC_EOI        equ APIC + 0xB0
APIC_SVR        equ APIC + 0xF0
APIC_ICR        equ APIC + 0x300
APIC_TIMER      equ APIC + 0x320
APIC_LINT0      equ APIC + 0x350
APIC_INITIAL    equ APIC + 0x380
APIC_CURRENT    equ APIC + 0x390
APIC_DIVIDE     equ APIC + 0x3E0
IO_INDEX        equ 0xFEC00000
IO_WINDOW       equ 0xFEC00010
MASKED          equ 1 << 16
PERIODIC        equ 1 << 17
LEVEL           equ 1 << 15
TO_SELF         equ 1 << 18

TICK            equ IRQ_BASE + 0        ; the local APIC's timer
PIT             equ IRQ_BASE + 1
SERIAL          equ IRQ_BASE + 4
LOW             equ IRQ_BASE + 8        ; vectors of one class, sent to oneself
HIGH            equ SYSTEM_CALL         ; of a higher one

%macro route 2                          ; pin, low half of its entry
    mov dword [IO_INDEX], 0x10 + 2 * (%1)
    mov dword [IO_WINDOW], %2
%endmacro

%macro send 1
    mov dword [APIC_ICR], TO_SELF | (%1)
%endmacro

; mix VALUE into `seen`. Changes EAX, ECX and EDX.
%macro mix 1
    mov eax, %1
    call mix_value
%endmacro

section .text
start:
    call install_gdt
    call install_interrupts
    mov al, 0xFF
    out 0x21, al
    out 0xA1, al
    on_vector TICK, ticked
    on_vector PIT, pit_fired
    on_vector SERIAL, serial_ready
    on_vector LOW, sent
    on_vector HIGH, sent
    mov dword [APIC_SVR], 0x1FF
    mov dword [APIC_LINT0], MASKED
    mov dword [APIC_DIVIDE], 11         ; by 1
    mix [APIC_ID]

    ; Priorities: held back by TPR, then in order.
    sti
    mov dword [APIC_TPR], 0xF0
    send LOW
    send HIGH
    mix [APIC_PPR]
    mov dword [APIC_TPR], 0x20          ; HIGH only
    mix [APIC_PPR]
    mov dword [APIC_TPR], 0
    mix [APIC_PPR]

    ; The timer against computing, then against sleep.
    mov dword [APIC_TIMER], PERIODIC | TICK
    mov dword [APIC_INITIAL], 3001
.compute:
    mix ebx
    inc ebx
    cmp dword [ticks], 40
    jb .compute
.sleep:
    hlt
    cmp dword [ticks], 60
    jb .sleep
    mov dword [APIC_DIVIDE], 1          ; by 4
    mov dword [APIC_TIMER], TICK        ; once
    mov dword [APIC_INITIAL], 500
    hlt
    mix [APIC_CURRENT]

    ; The PIT is an edge of pin 2, at some 12 kHz.
    mov al, 0x34
    out 0x43, al
    mov al, 100
    out 0x40, al
    mov al, 0
    out 0x40, al
    route 2, PIT
.wait:
    mix [APIC_CURRENT]
    cmp dword [fired], 20
    jb .wait
    route 2, MASKED

    ; COM1's empty transmitter is a level of pin 4.
    route 4, LEVEL | SERIAL
    mov dx, COM1 + 1
    mov al, 2
    out dx, al
.send:
    cli
    cmp dword [bytes], 20
    jae .done
    sti
    hlt
    jmp .send
.done:
    mov eax, [seen]
    hlt

; Changes ECX and EDX.
mix_value:
    pushf
    cli
    mov ecx, [seen]
    imul ecx, ecx, 69069
    lea ecx, [ecx + eax + 1]
    mov [seen], ecx
    popf
    ret

ticked:
    inc dword [ticks]
    mix [APIC_CURRENT]
    mov dword [APIC_EOI], 0
    ret

pit_fired:
    inc dword [fired]
    mix [APIC_PPR]
    mov dword [APIC_EOI], 0
    ret

sent:
    mix [ebx + FRAME_VECTOR]
    mix [APIC_PPR]
    mov dword [APIC_EOI], 0
    ret

; The line stays up while the transmitter is empty, which it always is: the end of the first
; interrupt brings the next one, until the reason has been read.
serial_ready:
    inc dword [bytes]
    cmp dword [bytes], 20
    jae .enough
    mov dx, COM1
    mov al, 'a'
    out dx, al
    jmp .end
.enough:
    mov dx, COM1 + 2
    in al, dx
.end:
    mix [bytes]
    mov dword [APIC_EOI], 0
    ret

section .bss
seen:   resd 1
ticks:  resd 1
fired:  resd 1
bytes:  resd 1
