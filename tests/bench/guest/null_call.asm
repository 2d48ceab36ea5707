; null_call.asm - ring 3 makes COUNT system calls of a kernel that does nothing but return.
;
; For tests/bench/virtual.py. The gate is a trap gate for ring 3, so that a hypervisor may let it
; pass (hypervisor/gates.py).

%include "guest.inc"
%include "ring3.inc"

CALL_VECTOR     equ 0x80
TRAP_GATE       equ 0xEF                ; present, DPL 3, 32-bit trap gate

start:
    mov esp, kernel_stack_top           ; apart from the tables: stores near those are looked at
    call install_rings
    mov eax, handler
    mov [idt + CALL_VECTOR * 8], ax
    shr eax, 16
    mov [idt + CALL_VECTOR * 8 + 6], ax
    mov byte [idt + CALL_VECTOR * 8 + 5], TRAP_GATE
    sti
    mov eax, program
    call call_ring_3
    exit 0

handler:
    iret

ring_3_code
program:
    mov ecx, COUNT
.again:
    int CALL_VECTOR
    dec ecx
    jnz .again
    int CALL_VECTOR + 1
ring_0_code

section .bss
alignb 4096
kernel_stack: resb 4096
kernel_stack_top:
resb 4096                               ; nor does anything follow it on its page
